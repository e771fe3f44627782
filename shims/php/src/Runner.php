<?php

declare(strict_types=1);

namespace Tidegate;

/** Serves the jobs of a tidegate pool of kind "warm", one at a time. */
final class Runner
{
    /**
     * Calls `$handle` for each job, and returns when there are no more.
     *
     * The return value is the reply: null for no reply, a string in UTF-8, `Bytes`, or any value for `json_encode`.
     * `Retry` and `Reject` are outcomes, and any other exception fails the job. From the call on, all output goes to the
     * log.
     *
     * @param callable(Job): mixed $handle
     */
    public static function serve(callable $handle): void
    {
        $answers = fopen('php://stdout', 'w');
        fclose(STDOUT);
        $log = fopen('php://fd/2', 'w'); // Takes the free descriptor 1. It stays open with this variable.
        $say = function (array $line, int $flags = 0) use ($answers): void {
            fwrite($answers, json_encode($line, JSON_THROW_ON_ERROR | $flags) . "\n");
        };
        $say(['ready' => true, 'protocol' => 1]);
        while (($line = fgets(STDIN)) !== false) {
            $job = new Job(json_decode($line, true, 512, JSON_THROW_ON_ERROR), $say);
            $job->run($handle);
        }
        unset($log);
    }
}
