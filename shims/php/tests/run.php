<?php

// Runs the vectors of the protocol against the package, and recorded messages against the examples, each with a
// process of its own. Needs no test framework.
declare(strict_types=1);

use Tidegate\{Job, Reject};

require __DIR__ . '/../autoload.php';

const TIME_LIMIT = 30;

/** @return list<array<string, mixed>> */
function vectors(string $file): array
{
    $lines = file($file, FILE_IGNORE_NEW_LINES);
    return array_map(fn (string $line) => json_decode($line, true, 512, JSON_THROW_ON_ERROR), $lines);
}

/** `{"contains": TEXT}` as an error is any text that contains TEXT. A key with null is the same as no key. */
function check(array $expected, ?array $found): void
{
    $plain = fn (array $line) => array_filter($line, fn ($value) => $value !== null);
    [$expected, $found] = [$plain($expected), $plain($found ?? [])];
    if (is_array($expected['error'] ?? null) && str_contains($found['error'] ?? '', $expected['error']['contains'])) {
        $expected['error'] = $found['error'];
    }
    // Not `===`: the order of keys does not matter. Not for the types of values either, so both are compared as JSON.
    $sorted = function (array $value) use (&$sorted): array {
        array_is_list($value) || ksort($value);
        return array_map(fn ($one) => is_array($one) ? $sorted($one) : $one, $value);
    };
    [$expected, $found] = [json_encode($sorted($expected)), json_encode($sorted($found))];
    $expected === $found ?: throw new Exception("$expected is expected, not $found");
}

/** Runs a vector with a program, and returns the log. */
function run(array $vector, string $program = __DIR__ . '/worker.php'): string
{
    $environment = ['TIDEGATE_PROTOCOL' => $vector['protocol'], 'TIDEGATE_CONCURRENCY' => $vector['concurrency']] + getenv();
    $log = tmpfile();
    $command = ['timeout', '--signal=KILL', (string) TIME_LIMIT, PHP_BINARY, $program];
    $worker = proc_open($command, [['pipe', 'r'], ['pipe', 'w'], $log], $pipes, null, $environment);
    [$input, $output] = $pipes;
    foreach ($vector['steps'] as $step) {
        if (isset($step['send'])) {
            [$unit, $times] = $step['fill'] ?? ['', 0];
            fwrite($input, str_replace('{fill}', str_repeat($unit, $times), $step['send']) . "\n");
        } elseif (isset($step['end'])) {
            fclose($input);
        } else {
            // One job at a time, so its lines have an order.
            foreach ($step['expect'] as $line) {
                check($line, json_decode((string) fgets($output), true));
            }
        }
    }
    is_resource($input) && fclose($input);
    $rest = stream_get_contents($output);
    $rest === '' ?: throw new Exception("there is output after the last answer: $rest");
    $code = proc_close($worker);
    rewind($log);
    $log = stream_get_contents($log);
    $code === 0 ?: throw new Exception("exit code $code: $log");
    return $log;
}

$tests = [];
foreach (vectors(__DIR__ . '/../../vectors/version-1.jsonl') as $vector) {
    $tests["version 1: {$vector['case']}"] = function () use ($vector): void {
        $log = run($vector);
        if (str_contains($vector['case'], 'child processes')) {
            substr_count($log, 'stray, of a child') === 4 ?: throw new Exception("output is not in the log: $log");
        }
    };
}
$examples = __DIR__ . '/../../../examples/messages';
foreach (['symfony', 'laravel'] as $framework) {
    foreach (vectors("$examples/$framework.jsonl") as $vector) {
        $tests["messages of $framework: {$vector['case']}"] = fn () => run($vector, "$examples/from_$framework.php");
    }
}
$tests['in a pool with concurrency it takes one job at a time'] = fn () => run(
    ['protocol' => 2, 'concurrency' => 4, 'steps' => [['expect' => [['ready' => true, 'protocol' => 1]]]]],
);
$tests['a body that is not JSON is rejected'] = function (): void {
    try {
        (new Job(['id' => '1', 'body' => '{'], fn () => null))->json();
    } catch (Reject $rejected) {
        str_contains($rejected->getMessage(), 'the body is not JSON') ?: throw $rejected;
        return;
    }
    throw new Exception('it is not rejected');
};

$failed = 0;
foreach ($tests as $name => $test) {
    try {
        $test();
        echo "ok $name\n";
    } catch (Throwable $error) {
        $failed++;
        echo "not ok $name: {$error->getMessage()}\n";
    }
}
printf("%d passed, %d failed\n", count($tests) - $failed, $failed);
exit($failed ? 1 : 0);
