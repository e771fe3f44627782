<?php
// Serves the jobs of a tidegate pool of kind "warm". Copy it to the folder of your worker.
namespace Tidegate;

/** Try again later. Throw it with a delay in seconds, or without one for the pool's backoff. */
class Retry extends \Exception
{
    public function __construct(public ?float $delay = null) { parent::__construct("asked for later"); }
}

/** The job can never succeed: the message is dead-lettered with this reason. */
class Reject extends \Exception {}

/** Calls $handle($job, $progress) for each job. Its return value is the reply. An exception is a failure. */
function serve(callable $handle): void
{
    $answers = fopen("php://stdout", "w");
    fclose(STDOUT);
    $log = fopen("php://fd/2", "w"); // Takes the free descriptor 1: all output goes to the log.
    $say = fn(array $line, int $flags = 0) => fwrite($answers, json_encode($line, JSON_THROW_ON_ERROR | $flags) . "\n");
    $say(["ready" => true, "protocol" => 1]);
    while (($line = fgets(STDIN)) !== false) {
        $job = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
        $job["bytes"] = isset($job["body_base64"]) ? base64_decode($job["body_base64"]) : $job["body"];
        try {
            $reply = $handle($job, fn($note = true) => $say(["id" => $job["id"], "progress" => $note]));
            $say(["id" => $job["id"], "outcome" => "done", "reply" => $reply]);
        } catch (Retry $asked) {
            $say(["id" => $job["id"], "outcome" => "retry", "delay" => $asked->delay]);
        } catch (Reject $refused) {
            $say(["id" => $job["id"], "outcome" => "reject", "error" => $refused->getMessage()], JSON_INVALID_UTF8_SUBSTITUTE);
        } catch (\Throwable $error) {
            fwrite(STDERR, "$error\n");
            $say(["id" => $job["id"], "outcome" => "failed", "error" => $error::class . ": " . $error->getMessage()], JSON_INVALID_UTF8_SUBSTITUTE);
        }
    }
}
