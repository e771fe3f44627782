<?php
require getenv("SHIMS") . "/tidegate.php";

Tidegate\serve(function (array $job, callable $progress) {
    echo "stray\n";
    print("stray\n");
    passthru("echo stray, of a child");
    switch ($job["bytes"]) {
        case "reply":
            return "caf\u{e9} {$job["id"]} {$job["attempt"]} {$job["headers"]["n"]}";
        case "json":
            return ["n" => [1, null, "caf\u{e9}", true]];
        case "no json":
            return ["n" => [NAN]];
        case "later":
            throw new Tidegate\Retry(2.5);
        case "never":
            throw new Tidegate\Reject("no such image");
        case "fail":
            throw new Exception("why \xff");
        case "\xff\n":
            return "bytes";
        case "lines\n\u{2028}of\u{85}text":
            $progress("half");
            return "lines";
    }
});
