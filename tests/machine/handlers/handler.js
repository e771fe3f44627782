const path = require("node:path");
const { execFileSync } = require("node:child_process");
const tidegate = require(path.join(process.env.SHIMS, "tidegate.js"));

tidegate.serve(async (job) => {
  console.log("stray");
  process.stdout.write("stray\n");
  execFileSync("echo", ["stray, of a child"], { stdio: "inherit" });
  switch (job.bytes.toString("latin1")) {
    case "reply":
      return `caf\u00e9 ${job.id} ${job.attempt} ${job.headers.n}`;
    case "json":
      return { n: [1, null, "caf\u00e9", true] };
    case "no json":
      return { n: [1n] };
    case "later":
      throw new tidegate.Retry(2.5);
    case "never":
      throw new tidegate.Reject("no such image");
    case "fail":
      throw new Error("why \ud800");
    case "\xff\n":
      return "bytes";
  }
  if (job.body === "lines\n\u2028of\u0085text") {
    job.progress("half");
    return "lines";
  }
});
