package tidegate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"
)

const timeLimit = 30 * time.Second

type line = map[string]any

type vector struct {
	Case        string
	Protocol    int
	Concurrency int
	Steps       []struct {
		Send   *string
		Fill   []any
		End    bool
		Expect []line
	}
}

func vectors(t *testing.T, file string) (all []vector) {
	text, err := os.ReadFile(filepath.Join("..", "vectors", file))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		var one vector
		if err := json.Unmarshal(text, &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// The worker, built once.
func worker(t *testing.T) string {
	program := filepath.Join(t.TempDir(), "worker")
	if said, err := exec.Command("go", "build", "-o", program, "./internal/worker").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return program
}

// A key with null is the same as no key. {"contains": TEXT} as an error is any text that contains TEXT.
func matches(expected, found line) bool {
	plain := func(from line) line {
		to := line{}
		for key, value := range from {
			if value != nil {
				to[key] = value
			}
		}
		return to
	}
	expected, found = plain(expected), plain(found)
	if error, ok := expected["error"].(line); ok {
		said, _ := found["error"].(string)
		if !strings.Contains(said, error["contains"].(string)) {
			return false
		}
		delete(expected, "error")
		delete(found, "error")
	}
	return reflect.DeepEqual(expected, found)
}

// Lines of one job have an order. Jobs have none among each other.
func byJob(lines []line) {
	place := func(line line) string { return fmt.Sprint(line["slot"], line["id"]) }
	sort.SliceStable(lines, func(a, b int) bool { return place(lines[a]) < place(lines[b]) })
}

// Returns the log.
func run(vector vector, program string, env ...string) (string, error) {
	worker := exec.Command(program)
	worker.Env = append(os.Environ(), fmt.Sprint("TIDEGATE_PROTOCOL=", vector.Protocol),
		fmt.Sprint("TIDEGATE_CONCURRENCY=", vector.Concurrency))
	worker.Env = append(worker.Env, env...)
	var log bytes.Buffer
	worker.Stderr = &log
	stdin, err := worker.StdinPipe()
	if err != nil {
		return "", err
	}
	stdout, err := worker.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := worker.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(timeLimit, func() { worker.Process.Kill() })
	defer timer.Stop()
	defer worker.Process.Kill()
	lines := bufio.NewReader(stdout)
	for _, step := range vector.Steps {
		switch {
		case step.Send != nil:
			text := *step.Send
			if step.Fill != nil {
				text = strings.Replace(text, "{fill}", strings.Repeat(step.Fill[0].(string), int(step.Fill[1].(float64))), 1)
			}
			if _, err := io.WriteString(stdin, text+"\n"); err != nil {
				return "", err
			}
		case step.End:
			stdin.Close()
		default:
			found := make([]line, len(step.Expect))
			for n := range found {
				text, err := lines.ReadBytes('\n')
				if err != nil {
					return "", fmt.Errorf("no answer: %w. The log: %s", err, log.String())
				}
				if err := json.Unmarshal(text, &found[n]); err != nil {
					return "", err
				}
			}
			byJob(step.Expect)
			byJob(found)
			for n := range found {
				if !matches(step.Expect[n], found[n]) {
					return "", fmt.Errorf("%v is expected, not %v", step.Expect[n], found[n])
				}
			}
		}
	}
	stdin.Close()
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		return "", errors.Join(err, fmt.Errorf("there is output after the last answer: %s", rest))
	}
	return log.String(), worker.Wait()
}

func TestVectors(t *testing.T) {
	program := worker(t)
	for _, file := range []string{"version-1.jsonl", "version-2.jsonl"} {
		for _, vector := range vectors(t, file) {
			vector := vector
			t.Run(fmt.Sprint(vector.Protocol, ": ", vector.Case), func(t *testing.T) {
				log, err := run(vector, program)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(vector.Case, "child processes") && !strings.Contains(log, "stray\nstray, of a child\n") {
					t.Fatalf("output is not in the log: %q", log)
				}
			})
		}
	}
}

func TestAWorkerMayTakeFewerJobsThanThePoolAllows(t *testing.T) {
	var vector vector
	text := `{"protocol":2,"concurrency":4,"steps":[{"expect":[{"ready":true,"protocol":2,"concurrency":3}]}]}`
	if err := json.Unmarshal([]byte(text), &vector); err != nil {
		t.Fatal(err)
	}
	if _, err := run(vector, worker(t), "MOST=3"); err != nil {
		t.Fatal(err)
	}
}

func TestABodyThatIsNotJSONIsRejected(t *testing.T) {
	job := Job{Body: []byte("{")}
	var rejected *RejectError
	if err := job.JSON(new(any)); !errors.As(err, &rejected) {
		t.Fatal(err)
	}
}
