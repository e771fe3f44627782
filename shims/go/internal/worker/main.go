// Command worker has the handlers of the protocol's vectors. A job's header "do" selects what it does.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	tidegate "tidegate/v2"
)

var meeting sync.WaitGroup

// The text, or null.
func text(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func handle(ctx context.Context, job *tidegate.Job) (any, error) {
	switch job.Headers["do"] {
	case "describe":
		return map[string]any{
			"id": job.ID, "attempt": job.Attempt, "pool": job.Pool, "queue": job.Queue, "redelivered": job.Redelivered,
			"exchange": job.Exchange, "routing_key": job.RoutingKey, "type": text(job.Type), "app_id": text(job.AppID),
			"message_id": text(job.MessageID), "correlation_id": text(job.CorrelationID), "reply_to": text(job.ReplyTo),
			"priority": job.Priority, "timestamp": job.Timestamp, "content_type": text(job.ContentType),
			"content_encoding": text(job.ContentEncoding), "traceparent": text(job.TraceParent),
			"tracestate": text(job.TraceState), "headers": job.Headers, "truncated": job.Truncated, "body": job.Body,
		}, nil
	case "digest":
		sum := sha256.Sum256(job.Body)
		return map[string]any{"length": len(job.Body), "sha256": hex.EncodeToString(sum[:])}, nil
	case "attempt":
		return job.Attempt, nil
	case "text":
		return string(job.Body), nil
	case "bytes":
		return job.Body, nil
	case "json":
		return map[string]any{"n": []any{1, nil, "café", true, 0.5}, "empty": struct{}{}}, nil
	case "not json":
		return math.NaN(), nil
	case "retry in 2.5":
		return nil, tidegate.Retry(2500 * time.Millisecond)
	case "retry":
		return nil, tidegate.RetryLater()
	case "reject":
		return nil, tidegate.Reject("no such image")
	case "fail":
		fmt.Println("stray")
		return nil, errors.New("why")
	case "fail with bytes":
		panic("why \xff")
	case "progress":
		return nil, errors.Join(job.Progress("40 %"), job.Progress(true), job.Progress(map[string]any{"left": []int{1}}))
	case "print":
		fmt.Println("stray")
		child := exec.Command("echo", "stray, of a child")
		child.Stdout = os.Stdout
		return nil, child.Run()
	case "retire":
		job.Retire()
	case "meet":
		meeting.Done()
		meeting.Wait()
		return "met", nil
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	case "finish":
		<-ctx.Done()
		return "finished", nil
	case "sleep":
		time.Sleep(100 * time.Millisecond)
		return "slept", nil
	}
	return nil, nil
}

func main() {
	meeting.Add(2)
	var options []tidegate.Option
	if most, err := strconv.Atoi(os.Getenv("MOST")); err == nil {
		options = append(options, tidegate.Concurrency(most))
	}
	if err := tidegate.Serve(handle, options...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
