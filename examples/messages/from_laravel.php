<?php

// Handles jobs that Laravel puts on RabbitMQ, as a warm program: docs/other-workers.md.
//
//     command = ["php", "examples/messages/from_laravel.php"]
declare(strict_types=1);

use Tidegate\{Job, Reject, Retry, Runner};

// In your project: vendor/autoload.php.
require __DIR__ . '/../../shims/php/autoload.php';

// All jobs, by the names that are pushed: Queue::push('App\Jobs\ResizeImage@handle', ['image' => ...]).
$handlers = [
    'App\Jobs\ResizeImage@handle' => function (array $data): void {
        if ($data['width'] <= 0) {
            throw new RuntimeException("a width of {$data['width']}");
        }
        echo "{$data['image']} is {$data['width']} wide\n"; // goes to the log
    },
];

Runner::serve(function (Job $job) use ($handlers): void {
    $payload = $job->json();
    $name = is_array($payload) ? $payload['job'] ?? null : null;
    if (!is_string($name)) {
        throw new Reject('not a payload of Laravel');
    }
    if (isset($payload['data']['command'])) {
        // `data.command` is a serialised object. To unserialise it lets anyone who can publish run code here: never do it.
        throw new Reject("{$payload['displayName']} is a serialised object, which needs a worker of Laravel");
    }
    $handler = $handlers[$name] ?? throw new Reject("there is no job $name");
    try {
        $handler((array) ($payload['data'] ?? []));
    } catch (Exception $error) {
        $tries = $payload['maxTries'] ?? null;
        if ($tries !== null && $job->attempt >= $tries) {
            throw new Reject("failed $job->attempt times: {$error->getMessage()}", 0, $error);
        }
        if (is_numeric($payload['backoff'] ?? null)) {
            throw new Retry((float) $payload['backoff']);
        }
        throw $error;
    }
});
