<?php

// Handles messages that Symfony Messenger sends as JSON, as a warm program: docs/other-workers.md.
//
//     command = ["php", "examples/messages/from_symfony.php"]
declare(strict_types=1);

use Tidegate\{Job, Reject, Runner};

// In your project: vendor/autoload.php.
require __DIR__ . '/../../shims/php/autoload.php';

// All messages, by the class names that senders use. A name in a message must never choose a class by itself.
$handlers = [
    'App\Message\ResizeImage' => function (array $message): void {
        if ($message['width'] <= 0) {
            throw new RuntimeException("a width of {$message['width']}");
        }
        echo "{$message['image']} is {$message['width']} wide\n"; // goes to the log
    },
];

Runner::serve(function (Job $job) use ($handlers): void {
    $type = $job->headers['type'] ?? null;
    if (!is_string($type)) {
        // The default serializer of Symfony sends serialised objects of PHP. They are not read: see docs/other-workers.md.
        throw new Reject('the message has no header `type`: the transport does not use symfony_serializer');
    }
    $handler = $handlers[$type] ?? throw new Reject("there is no handler for $type");
    $message = $job->json();
    $handler(is_array($message) ? $message : throw new Reject('the message is not an object'));
});
