<?php

declare(strict_types=1);

namespace Tidegate;

/** A job. A value that the message does not have is null. */
final class Job
{
    /** The message's id, or an id that tidegate made. */
    public readonly string $id;
    /** 1 for the first attempt. */
    public readonly int $attempt;
    /** The body, unchanged. */
    public readonly string $body;
    /** @var array<string, mixed> The headers. Bytes are ["base64" => "..."]. */
    public readonly array $headers;
    /** Whether `headers` is not complete. */
    public readonly bool $truncated;
    public readonly string $pool;
    public readonly string $queue;
    public readonly bool $redelivered;
    /** The exchange of the first publish. The default exchange is "". */
    public readonly string $exchange;
    public readonly string $routingKey;
    public readonly ?string $type;
    public readonly ?string $appId;
    public readonly ?string $messageId;
    public readonly ?string $correlationId;
    public readonly ?string $replyTo;
    public readonly ?int $priority;
    /** In seconds since 1970. */
    public readonly ?int $timestamp;
    public readonly ?string $contentType;
    public readonly ?string $contentEncoding;
    public readonly ?string $traceparent;
    public readonly ?string $tracestate;

    private bool $last = false;

    /**
     * @param array<string, mixed> $line The job's whole line, with the keys that this version of the package does not know.
     * @param \Closure(array<string, mixed>): void $say
     * @internal
     */
    public function __construct(public readonly array $line, private readonly \Closure $say)
    {
        $this->id = $line['id'];
        $this->attempt = $line['attempt'] ?? 1;
        $this->body = isset($line['body_base64']) ? base64_decode($line['body_base64'], true) : $line['body'] ?? '';
        $this->headers = $line['headers'] ?? [];
        $this->truncated = $line['truncated'] ?? false;
        $this->pool = $line['pool'] ?? '';
        $this->queue = $line['queue'] ?? '';
        $this->redelivered = $line['redelivered'] ?? false;
        $this->exchange = $line['exchange'] ?? '';
        $this->routingKey = $line['routing_key'] ?? '';
        $this->type = $line['type'] ?? null;
        $this->appId = $line['app_id'] ?? null;
        $this->messageId = $line['message_id'] ?? null;
        $this->correlationId = $line['correlation_id'] ?? null;
        $this->replyTo = $line['reply_to'] ?? null;
        $this->priority = $line['priority'] ?? null;
        $this->timestamp = $line['timestamp'] ?? null;
        $this->contentType = $line['content_type'] ?? null;
        $this->contentEncoding = $line['content_encoding'] ?? null;
        $this->traceparent = $line['traceparent'] ?? null;
        $this->tracestate = $line['tracestate'] ?? null;
    }

    /** The body as JSON, objects as arrays. A body that is not JSON rejects the job: another attempt would fail too. */
    public function json(): mixed
    {
        try {
            return json_decode($this->body, true, 512, JSON_THROW_ON_ERROR);
        } catch (\JsonException $error) {
            throw new Reject("the body is not JSON: {$error->getMessage()}", 0, $error);
        }
    }

    /** The job's `timeout` starts again. The note is any value of JSON but null. */
    public function progress(mixed $note = true): void
    {
        ($this->say)(['id' => $this->id, 'progress' => $note]);
    }

    /** Asks for a new process in the place of this one after the job. */
    public function retire(): void
    {
        $this->last = true;
    }

    /**
     * @param callable(self): mixed $handle
     * @internal
     */
    public function run(callable $handle): void
    {
        try {
            $reply = $handle($this);
            $isBytes = $reply instanceof Bytes;
            $this->answer('done', $isBytes ? ['reply_base64' => base64_encode($reply->bytes)] : ['reply' => $reply]);
        } catch (Retry $asked) {
            $this->answer('retry', ['delay' => $asked->delay]);
        } catch (Reject $refused) {
            $this->answer('reject', ['error' => $refused->getMessage()], JSON_INVALID_UTF8_SUBSTITUTE);
        } catch (\Throwable $error) {
            fwrite(STDERR, "$error\n");
            $this->answer('failed', ['error' => $error::class . ": {$error->getMessage()}"], JSON_INVALID_UTF8_SUBSTITUTE);
        }
    }

    /** @param array<string, mixed> $more */
    private function answer(string $outcome, array $more, int $flags = 0): void
    {
        $more = array_filter($more, fn ($value) => $value !== null);
        ($this->say)(['id' => $this->id, 'outcome' => $outcome] + $more + ($this->last ? ['last' => true] : []), $flags);
    }
}
