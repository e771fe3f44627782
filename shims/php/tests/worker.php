<?php

// The handlers of the protocol's vectors. A job's header `do` selects what it does.
declare(strict_types=1);

use Tidegate\{Bytes, Job, Reject, Retry, Runner};

require __DIR__ . '/../autoload.php';

Runner::serve(fn (Job $job): mixed => match ($job->headers['do'] ?? null) {
    'describe' => [
        'id' => $job->id, 'attempt' => $job->attempt, 'pool' => $job->pool, 'queue' => $job->queue,
        'redelivered' => $job->redelivered, 'exchange' => $job->exchange, 'routing_key' => $job->routingKey,
        'type' => $job->type, 'app_id' => $job->appId, 'message_id' => $job->messageId,
        'correlation_id' => $job->correlationId, 'reply_to' => $job->replyTo, 'priority' => $job->priority,
        'timestamp' => $job->timestamp, 'content_type' => $job->contentType, 'content_encoding' => $job->contentEncoding,
        'traceparent' => $job->traceparent, 'tracestate' => $job->tracestate, 'headers' => (object) $job->headers,
        'truncated' => $job->truncated, 'body' => base64_encode($job->body),
    ],
    'digest' => ['length' => strlen($job->body), 'sha256' => hash('sha256', $job->body)],
    'attempt' => $job->attempt,
    'text' => $job->body,
    'bytes' => new Bytes($job->body),
    'json' => ['n' => [1, null, 'café', true, 0.5], 'empty' => new stdClass()],
    'not json' => [NAN],
    'retry in 2.5' => throw new Retry(2.5),
    'retry' => throw new Retry(),
    'reject' => throw new Reject('no such image'),
    'fail' => (print "stray\n") ? throw new RuntimeException('why') : null,
    'fail with bytes' => throw new RuntimeException("why \xff"),
    'progress' => [$job->progress('40 %'), $job->progress(), $job->progress(['left' => [1]])] ? null : null,
    'print' => (function (): void {
        echo "stray\n";
        print "stray\n";
        passthru('echo stray, of a child');
        system('echo stray, of a child >&1');
    })(),
    'retire' => $job->retire(),
    default => null,
});
