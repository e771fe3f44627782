// Package tidegate serves the jobs of a tidegate pool of kind "warm", up to the pool's concurrency at a time.
//
//	func main() {
//		tidegate.Serve(func(ctx context.Context, job *tidegate.Job) (any, error) {
//			return fmt.Sprintf("resized %d bytes", len(job.Body)), nil
//		})
//	}
package tidegate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// Job is a job. A text that the message does not have is empty.
type Job struct {
	// ID is the message's id, or an id that tidegate made.
	ID string `json:"id"`
	// Attempt is 1 for the first attempt.
	Attempt int `json:"attempt"`
	// Body is the body, unchanged.
	Body []byte `json:"-"`
	// Headers are the headers. Numbers are json.Number. Bytes are {"base64": "..."}.
	Headers map[string]any `json:"headers"`
	// Truncated says that Headers is not complete.
	Truncated   bool   `json:"truncated"`
	Pool        string `json:"pool"`
	Queue       string `json:"queue"`
	Redelivered bool   `json:"redelivered"`
	// Exchange and RoutingKey are those of the first publish. The default exchange is "".
	Exchange        string `json:"exchange"`
	RoutingKey      string `json:"routing_key"`
	Type            string `json:"type"`
	AppID           string `json:"app_id"`
	MessageID       string `json:"message_id"`
	CorrelationID   string `json:"correlation_id"`
	ReplyTo         string `json:"reply_to"`
	Priority        *int   `json:"priority"`
	Timestamp       *int64 `json:"timestamp"` // In seconds since 1970.
	ContentType     string `json:"content_type"`
	ContentEncoding string `json:"content_encoding"`
	TraceParent     string `json:"traceparent"`
	TraceState      string `json:"tracestate"`
	// Line is the job's whole line, with the keys that this version of the package does not know.
	Line json.RawMessage `json:"-"`

	place place
	last  bool
	out   *output
}

// Handler runs a job. ctx is done when the job must stop. The first result is the reply: nil for no reply, a string, a
// []byte, or a value for json.Marshal. An error of [Retry], [RetryLater] or [Reject] is an outcome, and any other error
// or a panic fails the job.
type Handler func(ctx context.Context, job *Job) (any, error)

// JSON reads the body into v. Its error rejects the job: another attempt would fail too.
func (job *Job) JSON(v any) error {
	if err := json.Unmarshal(job.Body, v); err != nil {
		return Reject("the body is not the expected JSON: " + err.Error())
	}
	return nil
}

// Progress starts the job's timeout again. note is any value for json.Marshal that is not null.
func (job *Job) Progress(note any) error {
	return job.out.say(struct {
		place
		Progress any `json:"progress"`
	}{job.place, note})
}

// Retire asks for a new process in the place of this one after the job.
func (job *Job) Retire() { job.last = true }

// RetryError is the error of [Retry] and [RetryLater].
type RetryError struct {
	// After is nil for the pool's backoff.
	After *time.Duration
}

func (*RetryError) Error() string { return "asked for a later attempt" }

// RejectError is the error of [Reject].
type RejectError struct{ Reason string }

func (err *RejectError) Error() string { return err.Reason }

// Retry asks for another attempt after this time.
func Retry(after time.Duration) error { return &RetryError{&after} }

// RetryLater asks for another attempt after the pool's backoff.
func RetryLater() error { return &RetryError{} }

// Reject says that the job can never succeed: its message is dead-lettered with this reason.
func Reject(reason string) error { return &RejectError{reason} }

// Option is an option of [Serve].
type Option func(*settings)

type settings struct{ concurrency int }

// Concurrency takes fewer jobs at a time than the pool allows.
func Concurrency(jobs int) Option {
	return func(settings *settings) { settings.concurrency = min(settings.concurrency, max(1, jobs)) }
}

// Serve calls handle for each job, and returns when there are no more and all have ended. From the call on, all output of
// the program and of its child processes goes to the log. Its error is one of the pipes to tidegate.
func Serve(handle Handler, options ...Option) error {
	jobs, answers, err := takePipes()
	if err != nil {
		return fmt.Errorf("failed to take the pipes of the protocol: %w", err)
	}
	most, err := strconv.Atoi(os.Getenv("TIDEGATE_CONCURRENCY"))
	if err != nil {
		most = 1
	}
	settings := settings{max(1, most)}
	for _, option := range options {
		option(&settings)
	}
	return serve(handle, jobs, &output{to: answers}, settings.concurrency)
}

// Which job an answer is of.
type place struct {
	ID   string  `json:"id"`
	Slot *uint32 `json:"slot,omitempty"` // Absent in version 1.
}

func (place place) slot() uint32 {
	if place.Slot == nil {
		return 0
	}
	return *place.Slot
}

type output struct {
	sync.Mutex
	to io.Writer
}

// Writes a line at once, so that lines of two jobs do not mix.
func (out *output) say(line any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(line); err != nil {
		return err
	}
	out.Lock()
	defer out.Unlock()
	_, err := out.to.Write(text.Bytes())
	return err
}

func serve(handle Handler, jobs io.Reader, out *output, concurrency int) error {
	ready := map[string]any{"ready": true, "protocol": 1}
	if concurrency > 1 {
		ready["protocol"], ready["concurrency"] = 2, concurrency
	}
	if err := out.say(ready); err != nil {
		return err
	}
	var running sync.WaitGroup
	stops := map[uint32]context.CancelFunc{}
	defer func() {
		running.Wait() // Finish what has begun.
		for _, stop := range stops {
			stop()
		}
	}()
	lines := bufio.NewReader(jobs)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var said struct {
			place
			Stop       bool    `json:"stop"`
			Body       *string `json:"body"`
			BodyBase64 []byte  `json:"body_base64"`
		}
		if err := json.Unmarshal(line, &said); err != nil {
			return fmt.Errorf("failed to read a line of tidegate: %w", err)
		}
		slot := said.slot()
		if stop := stops[slot]; stop != nil {
			stop() // The job must stop, or has ended.
		}
		if said.Stop {
			continue
		}
		job := &Job{Body: said.BodyBase64, Line: line, place: said.place, out: out}
		if said.Body != nil {
			job.Body = []byte(*said.Body)
		}
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.UseNumber()
		if err := decoder.Decode(job); err != nil {
			return fmt.Errorf("failed to read a line of tidegate: %w", err)
		}
		ctx, stop := context.WithCancel(context.Background())
		stops[slot] = stop
		running.Add(1)
		go func() {
			defer running.Done()
			job.run(ctx, handle)
		}()
	}
}

// An answer. Replies are pointers, so that an empty reply is not the same as none.
type answer struct {
	place
	Outcome     string   `json:"outcome"`
	Reply       *any     `json:"reply,omitempty"`
	ReplyBase64 *[]byte  `json:"reply_base64,omitempty"`
	Delay       *float64 `json:"delay,omitempty"`
	Error       string   `json:"error,omitempty"`
	Last        bool     `json:"last,omitempty"`
}

func (job *Job) run(ctx context.Context, handle Handler) {
	reply, err := job.call(ctx, handle)
	if err == nil {
		done := answer{place: job.place, Outcome: "done", Last: job.last}
		if body, ok := reply.([]byte); ok && body != nil {
			done.ReplyBase64 = &body
		} else if reply != nil && !ok {
			done.Reply = &reply
		}
		if err = job.out.say(done); err == nil {
			return
		}
	}
	told := answer{place: job.place, Last: job.last}
	var later *RetryError
	var never *RejectError
	switch {
	case errors.As(err, &later):
		told.Outcome = "retry"
		if later.After != nil {
			delay := later.After.Seconds()
			told.Delay = &delay
		}
	case errors.As(err, &never):
		told.Outcome, told.Error = "reject", err.Error()
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		told.Outcome, told.Error = "failed", "stopped"
	default:
		fmt.Fprintln(os.Stderr, err)
		told.Outcome, told.Error = "failed", err.Error()
	}
	// Where even this cannot be written, tidegate has closed the pipe.
	_ = job.out.say(told)
}

func (job *Job) call(ctx context.Context, handle Handler) (reply any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			fmt.Fprintf(os.Stderr, "panic: %v\n%s", cause, debug.Stack())
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	return handle(ctx, job)
}
