// The dashboard as a person meets it. Each test is a sentence; what it needs besides a browser, it starts and stops.

import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Line, Node, ROOT, TOKEN, assertAccessible, buttons, close, deleteQueues, hasServer, launch, live, open, publish, record, row, startDaemon, unique, until } from "./support.mjs";

// Longer than a queue that rises and drains takes on a machine that is busy compiling.
const timeout = 180_000;

const NAMES = ["lab", "tide", "fails", "long", "buried", "drained", "pinned", "warm", "broken"];
const queues = Object.fromEntries(NAMES.map((name) => [name, unique(name)]));
const pool = (name, queue, command, more = "") => `
[pools.${name}]
queue = "${queue}"
declare = "classic"
drain_after = "1s"
[pools.${name}.policy]
kind = "backlog"
jobs_per_worker = 5
max = 8
[pools.${name}.scaling]
down_window = "1s"
[pools.${name}.runner]
command = ${JSON.stringify(command)}
${more}`;

const POOLS = pool("tide", queues.tide, ["/bin/sleep", "0.3"])
  + pool("fails", queues.fails, ["/bin/sh", "-c", "echo 'Traceback: <b>no picture</b>' >&2; exit 3"], '[pools.fails.retry]\nmax_attempts = 2\nbackoff = "1s"\nbackoff_max = "1s"\n')
  + pool("lab", queues.lab, ["/bin/true"])
  + pool("buried", queues.buried, ["/bin/sh", "-c", "exit 65"])
  + pool("long", queues.long, ["/bin/sleep", "600"])
  + pool("drained", queues.drained, ["/bin/sleep", "600"], '[pools.drained.retry]\nbackoff = "1s"\n')
  + pool("pinned", queues.pinned, ["/bin/true"])
  + pool("broken", queues.broken, ["/bin/false"], 'kind = "warm"\n')
  + pool("warm", queues.warm, [process.execPath, "--input-type=module", "-e", `import { serve } from ${JSON.stringify(join(ROOT, "shims/node/index.js"))}; await serve(async () => {})`], 'kind = "warm"\n')
    .replace('drain_after = "1s"', "keep_warm = 1");

const noQueue = (name) => `[pools.${name}]\nqueue = "${unique("none")}-${name}"\n[pools.${name}.runner]\ncommand = ["/bin/true"]\n`;

let browser;
let daemon;

before(async () => {
  browser = await launch();
  daemon = await startDaemon({ pools: POOLS });
}, { timeout });

after(async () => {
  await browser?.close();
  await daemon?.end();
  await deleteQueues(Object.values(queues));
});

async function giveToken(page, token = TOKEN) {
  await page.locator("#token").fill(token);
  await page.getByRole("button", { name: "Use it" }).click();
}

const press = (page, name) => page.getByRole("button", { name, exact: true }).click();

// The line of the action log: what was done, and its result.
async function assertLogged(page, act, outcome = "done") {
  const line = page.locator("#actions tbody tr").filter({ hasText: act }).first();
  await until(`${act} is in the log`, async () => (await line.locator("td").allTextContents()).slice(1).join("|") === `${act}|token|${outcome}`);
}

test("a tide is seen to rise and to drain", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "tide" });
  await live(page);
  await until("the pool is at rest", async () => (await row(page, "tide")).live === 0);
  await publish(queues.tide, Array.from({ length: 90 }, () => ({})));
  await until("eight workers are live", async () => (await row(page, "tide")).live === 8);
  assert.match(await page.locator("#decision").textContent(), /workers?: /);
  await until("every worker has left", async () => {
    const { state, ready, live } = await row(page, "tide");
    return ready === 0 && live === 0 && state === "idle";
  }, 120);
  const done = page.locator("#outcomes tr").first();
  await until("all jobs are counted", async () => (await done.textContent()).endsWith("9090"));
  const tiles = await page.locator("#tiles dt").allTextContents();
  for (const name of ["Wait", "Run time"]) assert.ok(tiles.includes(name), `${name}: ${tiles}`);
  for (const line of ["line-demand", "line-expected", "fill-live", "fill-done"]) {
    assert.match(await page.locator(`#plot .${line}`).getAttribute("d"), /[HhV]/, line);
  }
  await page.locator("#plot svg").focus();
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.locator("#reading").textContent(), /ready, .* demand · .* live/);
  await close(page);
});

test("the decision is told in words with every term", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "tide" });
  await live(page);
  await until("the sentence is there", async () => /^\d+ workers?: .+\.$/.test(await page.locator("#decision").textContent()));
  assert.equal(await page.locator("#terms .won").count(), 1);
  await page.getByText("The whole record").click();
  assert.match(await page.locator("#record").textContent(), /expected \d+ \(by /);
  await close(page);
});

test("a failure is told with its reason and the end of its standard error, as text", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "fails" });
  await live(page);
  const id = "<img src=x onerror=alert(1)>";
  await publish(queues.fails, [{ id }]);
  const rows = page.locator("#failures tbody tr");
  await until("both attempts have failed", async () => (await rows.count()) === 2);
  const newest = await rows.first().textContent();
  assert.match(newest, /dead: attempts/);
  assert.ok(newest.includes(id), newest);
  await rows.last().locator("summary").click();
  assert.match(await rows.last().locator("pre").innerText(), /Traceback: <b>no picture<\/b>/);
  await until("the dead letter is counted", async () => (await page.locator("#dead-text").textContent()).startsWith("1 dead letter"));
  await close(page);
});

test("dead letters are looked at, retried and purged after a question, and the result is counted", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "buried" });
  await live(page);
  const bodies = ["<script>alert(1)</script>", "two\nlines", "plain"];
  await publish(queues.buried, bodies.map((body, n) => ({ id: `letter-${n}`, body })));
  const waits = async (text) => (await page.locator("#dead-text").textContent()).startsWith(text);
  await until("three are dead", () => waits("3 dead letters wait"));
  assert.match(await page.locator("#summary").textContent(), /\d+ dead letters?$/);
  // Looking needs the token too: it shows bodies.
  await page.getByRole("button", { name: "Look" }).click();
  await giveToken(page);
  const rows = page.locator("#dead-body tr.letter");
  await until("three are shown", async () => (await rows.count()) === 3);
  const shown = await page.locator("#dead-body tbody tr").allTextContents();
  for (const part of ["<script>alert(1)</script>", "two\\nlines", "letter-0", "rejected"]) assert.ok(shown.join().includes(part), `${part}: ${shown}`);
  await assertAccessible(page, "dead letters");
  // Nothing is done without a choice, and nothing after a no.
  await page.getByRole("button", { name: "Purge chosen" }).click({ force: true });
  assert.ok(await page.locator("#confirm-dialog").isHidden());
  await page.getByLabel("Choose letter-1").check();
  await page.getByRole("button", { name: "Purge chosen" }).click();
  await page.getByRole("heading", { name: "Purge 1 dead letter of buried?" }).waitFor();
  await assertAccessible(page, "a question about dead letters");
  assert.equal(await page.locator("#confirm-list").textContent(), "letter-1");
  await page.getByRole("button", { name: "No", exact: true }).click();
  assert.equal(await rows.count(), 3);
  await page.getByRole("button", { name: "Purge chosen" }).click();
  await page.getByRole("button", { name: "Yes" }).click();
  await page.getByText("buried: 1 of 3 dead letters deleted.").waitFor();
  await until("two are shown", async () => (await rows.count()) === 2);
  await assertLogged(page, "dead purge letter-1", "1 of 3 deleted");
  // The job rejects them again, so they come back.
  await page.getByRole("button", { name: "Retry all" }).click();
  await page.getByRole("button", { name: "Yes" }).click();
  await page.getByText("buried: 2 of 2 dead letters put back.").waitFor();
  await assertLogged(page, "dead retry", "2 of 2 put back");
  // The page may still show the number of before. The supervisor counts each dead letter once it is in its queue.
  await until("they are dead again", async () => (await daemon.pool("buried")).jobs.dead === 5);
  // An answer of before may still draw the table again, without the choice.
  const askedAbout = (box, heading) => until(`it asks: ${heading}`, async () => {
    await page.getByLabel(box).check();
    await press(page, "Retry chosen");
    return page.getByRole("heading", { name: heading }).isVisible();
  });
  await press(page, "Look");
  await until("both are shown", async () => (await rows.count()) === 2);
  await askedAbout("Choose letter-2", "Retry 1 dead letter of buried?");
  await press(page, "Yes");
  await page.getByText("buried: 1 of 2 dead letters put back.").waitFor();
  await assertLogged(page, "dead retry letter-2", "1 of 2 put back");
  await until("it is dead again", async () => (await daemon.pool("buried")).jobs.dead === 6);
  await press(page, "Look");
  await until("both are shown again", async () => (await rows.count()) === 2);
  await askedAbout("Choose all that are shown", "Retry 2 dead letters of buried?");
  await press(page, "No");
  await page.getByRole("button", { name: "Purge all" }).click();
  await page.getByRole("button", { name: "Yes" }).click();
  await page.getByText("buried: 2 of 2 dead letters deleted.").waitFor();
  await assertLogged(page, "dead purge", "2 of 2 deleted");
  await until("none is left", () => waits("No dead letter waits."));
  await close(page);
});

test("a wrong token is refused, and the page says so", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "tide" });
  await live(page);
  await page.getByRole("button", { name: "Pause" }).click();
  await giveToken(page, "guessed");
  const alert = page.getByRole("alert");
  await alert.getByText("Refused: the token is wrong.").waitFor();
  await assertAccessible(page, "a refusal");
  await press(page, "Close");
  await alert.waitFor({ state: "hidden" });
  // It is asked for again, and also after it was forgotten. Without one, nothing is asked of the daemon.
  await press(page, "Pause");
  assert.ok(await page.getByRole("dialog").isVisible());
  await press(page, "Cancel");
  await press(page, "Token");
  await giveToken(page);
  await press(page, "Token");
  await press(page, "Forget it");
  await press(page, "Pause");
  assert.ok(await page.getByRole("dialog").isVisible());
  await press(page, "Cancel");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.ok(await alert.isHidden());
  assert.notEqual((await row(page, "tide")).state, "paused");
  await close(page);
});

test("a pool is paused and resumed by button", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "tide" });
  await live(page);
  await page.getByRole("button", { name: "Pause" }).click();
  await giveToken(page);
  await page.getByText(/Set by hand: paused by token since/).waitFor();
  await until("it is paused", async () => (await row(page, "tide")).state === "paused");
  await assertLogged(page, "pause");
  await assertAccessible(page, "paused");
  await press(page, "Resume");
  await until("it is not", async () => (await row(page, "tide")).state !== "paused");
  await assertLogged(page, "resume");
  await close(page);
});

test("a pool is drained by button after a question, and its last job is given back and taken again", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "drained" });
  await live(page);
  await publish(queues.drained, [{ id: "the-last" }]);
  const running = page.locator("#jobs tbody tr").getByText("the-last");
  await running.waitFor();
  // The list of jobs and the row of the pool are read at different times.
  await until("the pool is active", async () => (await row(page, "drained")).state === "active");
  await press(page, "Drain");
  await page.getByRole("heading", { name: "Drain drained?" }).waitFor();
  await press(page, "No");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.equal((await row(page, "drained")).state, "active");
  await press(page, "Drain");
  await assertAccessible(page, "a question");
  await press(page, "Yes");
  await giveToken(page);
  await page.getByRole("alert").getByText("drained drains.").waitFor();
  await until("it drains", async () => (await row(page, "drained")).state === "draining");
  await page.getByText(/Set by hand: draining by token since/).waitFor();
  await assertLogged(page, "drain");
  // Draining stops no job.
  assert.ok(await running.isVisible());
  await assertAccessible(page, "draining");
  await press(page, "Stop the job the-last");
  await page.getByRole("heading", { name: "Stop the job the-last?" }).waitFor();
  await assertAccessible(page, "a question about a job");
  await page.locator("#stop-dialog").getByRole("button", { name: "Cancel" }).click();
  await press(page, "Stop the job the-last");
  await press(page, "Give back");
  await assertLogged(page, "stop job the-last, then requeue");
  await until("nothing is left", async () => {
    const { state, ready, live } = await row(page, "drained");
    return state === "paused" && ready === 1 && live === 0;
  });
  await press(page, "Resume");
  await running.waitFor();
  await assertLogged(page, "resume");
  // It was given back, so this is still its first attempt.
  assert.equal(await page.locator("#jobs tbody td").nth(4).textContent(), "1");
  await press(page, "Stop the job the-last");
  await press(page, "Retry later");
  await assertLogged(page, "stop job the-last, then retry");
  await until("it runs again", async () => (await page.locator("#jobs tbody td").nth(4).textContent()) === "2");
  await close(page);
});

test("idle runners are flushed by button", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "warm" });
  await live(page);
  await publish(queues.warm, [{}]);
  const now = (state) => page.locator("#runners tr").filter({ hasText: state }).locator(".number").textContent();
  await until("a runner is idle", async () => (await now("Runners idle")) === "1");
  await press(page, "Flush");
  await giveToken(page);
  await page.getByRole("alert").getByText("warm ends its idle runners.").waitFor();
  await until("it has ended", async () => (await now("Runners idle")) === "0");
  // The pool keeps its size: a new worker waits without a runner.
  await until("a worker has come", async () => (await now("Workers without a runner")) === "1");
  await assertLogged(page, "flush");
  await press(page, "Flush");
  await assertLogged(page, "flush", "it was so already");
  await assertAccessible(page, "flushed");
  await close(page);
});

test("a pool is pinned by button, and follows its policy again", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "pinned" });
  await live(page);
  const auto = page.getByRole("button", { name: "Auto" });
  await until("nothing is pinned", async () => (await auto.getAttribute("aria-disabled")) === "true");
  await page.getByRole("spinbutton", { name: "Workers" }).fill("3");
  await press(page, "Pin");
  await giveToken(page);
  await page.getByRole("alert").getByText("pinned is pinned to 3 workers.").waitFor();
  await until("three workers are live", async () => {
    const { live, expected } = await row(page, "pinned");
    return live === 3 && expected === 3;
  });
  await page.getByText(/Set by hand: pinned to 3 workers by token since/).waitFor();
  await page.locator("#decision").getByText(/^3 workers: /).waitFor();
  await assertLogged(page, "scale 3");
  await assertAccessible(page, "pinned");
  await auto.click();
  await page.getByRole("alert").getByText("pinned follows its policy.").waitFor();
  await until("they have left", async () => (await row(page, "pinned")).live === 0);
  await assertLogged(page, "scale auto");
  await close(page);
});

test("a policy is tried on the last day beside the old one, applied, and seen by others", { timeout }, async () => {
  record(daemon, "lab", 6);
  const page = await open(browser, daemon, { pool: "lab" });
  await live(page);
  await page.getByText("one worker for each 5 jobs").waitFor();
  await page.getByRole("button", { name: "Try another" }).click();
  const [attempt, apply] = ["Try", "Apply"].map((name) => page.getByRole("button", { name, exact: true }));
  await page.locator("#lab-kind:focus").waitFor();
  assert.equal(await page.getByLabel("jobs_per_worker").inputValue(), "5");
  assert.ok(await page.getByLabel("utilisation").isHidden(), "of another kind");
  // Nothing is different yet.
  for (const button of [attempt, apply]) assert.equal(await button.getAttribute("aria-disabled"), "true");
  await page.getByLabel("jobs_per_worker").fill("0");
  await attempt.click();
  await giveToken(page);
  await page.locator("#lab-said").getByText(/^Refused: .*jobs_per_worker/).waitFor();
  await page.getByLabel("kind").selectOption("target_wait");
  await page.getByLabel("target", { exact: true }).fill("20s");
  await attempt.click();
  await page.locator("#lab-said").getByText(/95 of 100 would have waited up to .* instead of .*worker-seconds/).waitFor();
  const table = page.getByRole("table", { name: "Both policies on the recording" });
  assert.match((await table.locator("tr").allTextContents()).join(), /Jobs[\d,]+.*Over 20 s.*Most workers/);
  for (const line of ["fill-old", "line-old", "line-new"]) {
    for (const d of await page.locator(`#lab .${line}`).evaluateAll((paths) => paths.map((path) => path.getAttribute("d")))) assert.match(d, /[HV]/, line);
  }
  await page.locator("#lab svg").focus();
  await page.keyboard.press("ArrowRight");
  assert.match(await page.locator("#lab figcaption").textContent(), /old: .* ready, .* worker.* · new: /);
  assert.match(await page.locator("#lab-result").textContent(), /policy.kind: "backlog" → "target_wait".*Now, new: 0 workers.*is a guess/);
  // A dry run changes nothing.
  assert.match(await page.locator("#lab-policy").textContent(), /one worker for each 5 jobs/);
  assert.equal(await page.locator("#actions").getByText("policy").count(), 0);
  // What was tried is not shown for other values.
  await page.getByLabel("max", { exact: true }).fill("6");
  await page.getByText("The values have changed: try them.").waitFor();
  assert.equal(await table.count(), 0);
  // What was tried first is tried again, and applied as it is.
  await attempt.click();
  await table.waitFor();
  await assertAccessible(page, "both policies");
  await apply.click();
  await page.getByText("lab: policy.kind").waitFor();
  assert.ok(await page.locator("#lab-form").isHidden());
  await page.locator("#lab-policy").getByText("wait under 20s at 80 % utilisation, 1 to 6 workers").waitFor();
  await page.getByText(/Set by hand: a policy of its own by token since/).waitFor();
  await page.locator("#actions").getByText("policy").first().waitFor();
  await assertAccessible(page, "another policy");
  await page.getByRole("button", { name: "Try another" }).click();
  await page.getByText("longest good wait (by hand)").waitFor();
  await page.getByRole("button", { name: "Back", exact: true }).click();
  assert.equal(await page.locator(":focus").getAttribute("id"), "lab-open");
  await close(page);
});

test("a pool without a recording says so, and still says what the policy would do now", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "long" });
  await live(page);
  await page.getByRole("button", { name: "Try another" }).click();
  await page.getByLabel("max", { exact: true }).fill("7");
  await page.keyboard.press("Enter");
  await giveToken(page);
  await page.locator("#lab-said").getByText(/Now the pool would have .* worker.*Nothing is simulated: .*record/).waitFor();
  await page.locator("#lab-result").getByText(/Now, old: .* workers?: /).waitFor();
  // Another pool has another form.
  await page.getByRole("button", { name: "tide", exact: true }).click();
  assert.ok(await page.locator("#lab-form").isHidden());
  assert.equal(await page.locator("#lab-result").textContent(), "");
  await close(page);
});

test("a job that runs is shown, and stopped by button", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "long" });
  await live(page);
  await publish(queues.long, [{ id: "a-long-one" }]);
  const running = page.locator("#jobs tbody tr");
  await running.getByText("a-long-one").waitFor();
  const ages = new Set();
  await until("its age goes on", async () => ages.add(await running.locator("td").nth(3).textContent()).size > 3);
  await page.getByRole("button", { name: "Stop the job a-long-one" }).click();
  await page.getByRole("button", { name: "Dead-letter" }).click();
  await giveToken(page);
  await page.getByText("No job runs.").waitFor();
  await assertLogged(page, "stop job a-long-one, then reject");
  await until("its message is dead", async () => (await page.locator("#dead-text").textContent()).startsWith("1 dead letter"));
  await close(page);
});

for (const [how, options] of [["wide", {}], ["narrow", { viewport: { width: 390, height: 844 } }]]) {
  test(`axe finds nothing serious on the ${how} page`, { timeout }, async () => {
    const page = await open(browser, daemon, { pool: "fails", ...options });
    await live(page);
    await publish(queues.fails, [{}]);
    await page.locator("#failures tbody tr").first().waitFor();
    for (const summary of await page.locator("summary").all()) await summary.click();
    record(daemon, "fails", 6);
    await page.getByRole("button", { name: "Try another" }).click();
    await page.getByLabel("jobs_per_worker").fill("2");
    await page.keyboard.press("Enter");
    await giveToken(page);
    await page.locator("#lab svg").waitFor();
    await assertAccessible(page, "everything is open");
    await page.getByRole("button", { name: "Token", exact: true }).click();
    await assertAccessible(page, "with the dialog");
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `wider than its window by ${overflow}`);
    await close(page);
  });
}

test("a pool whose runners do not start is faulted, with the cause", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "broken" });
  await live(page);
  await publish(queues.broken, [{}]);
  await until("it is faulted", async () => (await row(page, "broken")).state === "faulted");
  await page.locator("#cause").getByText(/exit code 1/).waitFor();
  await assertAccessible(page, "faulted");
  await close(page);
});

test("a refused configuration is shown", { timeout }, async () => {
  const own = await startDaemon({ pools: noQueue("quiet") });
  try {
    const page = await open(browser, own);
    await live(page);
    appendFileSync(own.config, 'no_such_key = true\n');
    own.process.kill("SIGHUP");
    await page.locator("#refused").getByText(/The newest configuration was refused.*no_such_key/).waitFor();
    await assertAccessible(page, "a refused configuration");
    await close(page);
  } finally {
    await own.end();
  }
});

test("a pool is chosen and every button reached by keyboard alone", { timeout }, async () => {
  const page = await open(browser, daemon, { pool: "tide" });
  await live(page);
  // The body's text is no name.
  const focused = () => page.evaluate(() => (document.activeElement === document.body ? "nothing" : document.activeElement.textContent.trim() || document.activeElement.id));
  const tabTo = async (text) => {
    for (let press = 0; press < 60; press += 1) {
      await page.keyboard.press("Tab");
      if ((await focused()) === text) return;
    }
    assert.fail(`Tab does not reach ${text}`);
  };
  await tabTo("tide");
  await page.keyboard.press("ArrowDown");
  assert.equal(await focused(), "fails");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "fails" }).waitFor();
  for (const button of ["Pause", "Resume", "Drain", "Flush", "scale-to", "Pin", "Auto"]) await tabTo(button);
  await tabTo("As a table");
  await page.keyboard.press("Enter");
  await page.locator("#samples tr").first().waitFor();
  await tabTo("Try another");
  await page.keyboard.press("Enter");
  await page.locator("#lab-kind").waitFor();
  for (const field of ["lab-jobs_per_worker", "lab-min_active", "lab-churn", "Try", "Apply", "Back"]) await tabTo(field);
  await page.keyboard.press("Enter");
  await page.locator("#lab-form").waitFor({ state: "hidden" });
  // From the top, a link leads past the list.
  await page.evaluate(() => document.activeElement.blur());
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  // The pool stays chosen.
  assert.ok(await page.getByRole("heading", { name: "fails" }).isVisible());
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Pause");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.equal(await focused(), "token");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await close(page);
});

test("fifty pools are listed, filtered and chosen", { timeout }, async () => {
  const names = Array.from({ length: 50 }, (_, n) => `pool-${String(n).padStart(2, "0")}`);
  const many = await startDaemon({ pools: names.map(noQueue).join("") });
  try {
    for (const viewport of [{ width: 1400, height: 900 }, { width: 390, height: 844 }]) {
      const page = await open(browser, many, { viewport });
      await live(page);
      await until("all rows are there", async () => (await page.locator("#rows tr").count()) === 50);
      await page.getByLabel("Filter").fill("pool-4");
      await until("ten match", async () => (await page.locator("#rows tr").count()) === 10);
      await page.getByRole("button", { name: "pool-47" }).click();
      await page.getByRole("heading", { name: "pool-47" }).waitFor();
      assert.match(page.url(), /#pool-47$/);
      await page.getByLabel("Filter").fill("no such");
      await page.getByText("No pool matches.").waitFor();
      await assertAccessible(page, "no pool matches");
      await close(page);
    }
  } finally {
    await many.end();
  }
});

test("a browser beyond loopback shows the token as a password, and can read but not steer by it", { timeout }, async () => {
  const far = await startDaemon({ pools: noQueue("far"), host: "0.0.0.0" });
  try {
    const refused = await fetch(far.url);
    assert.equal(refused.status, 401);
    assert.match(refused.headers.get("www-authenticate"), /Bearer.*Basic realm="tidegate"/);
    const page = await open(browser, far, { httpCredentials: { username: "anyone", password: TOKEN } });
    await live(page);
    const status = await page.evaluate(async () => (await fetch("/api/v1/pools/a/pause", { method: "POST" })).status);
    assert.equal(status, 401);
    await close(page);
  } finally {
    await far.end();
  }
});

test("a daemon that is started again is cut off, then live with what the page has seen", { timeout }, async () => {
  const own = await startDaemon({ pools: noQueue("quiet") });
  try {
    const page = await open(browser, own);
    await live(page);
    const samples = async () => {
      const summary = page.locator("#samples-block");
      await summary.evaluate((block) => (block.open = false));
      await summary.evaluate((block) => (block.open = true));
      return until("samples", async () => {
        const times = await page.locator("#samples th").allTextContents();
        return times.length && times;
      });
    };
    const oldest = (await samples()).at(-1);
    await until("some time is seen", async () => (await samples()).length > 2);
    await own.stop();
    await page.locator("#link.bad").getByText("cut off").waitFor();
    await page.getByText("Cut off from the daemon since").waitFor();
    await assertAccessible(page, "cut off");
    await own.start();
    await live(page);
    assert.ok(await page.locator("#cut").isHidden());
    assert.equal((await samples()).at(-1), oldest);
    await close(page);
  } finally {
    await own.end();
  }
});

test("a page that was cut off catches up on what has happened meanwhile", { timeout }, async () => {
  const queue = unique("missed");
  const own = await startDaemon({ pools: pool("missed", queue, ["/bin/true"]) });
  const line = await new Line(own).open();
  try {
    const page = await open(browser, line, { pool: "missed" });
    await live(page);
    // Each sample that the page has, as the number of jobs that were done.
    const samples = async () => {
      const block = page.locator("#samples-block");
      await block.evaluate((block) => (block.open = false));
      await block.evaluate((block) => (block.open = true));
      await page.locator("#samples tr").first().waitFor();
      return page.locator("#samples tr").evaluateAll((rows) => rows.map((row) => Number(row.cells[7].textContent)));
    };
    const before = (await samples()).length;
    await line.cut();
    await page.locator("#link.bad").getByText("cut off").waitFor();
    const history = async () => (await fetch(`${own.url}/api/v1/pools/missed/history`)).json();
    const cut = (await history()).at.length;
    await publish(queue, Array.from({ length: 7 }, () => ({})));
    const sum = (counts) => counts.reduce((sum, count) => sum + count, 0);
    await until("the daemon has samples of the time", async () => {
      const { at, done } = await history();
      return at.length >= cut + 3 && sum(done) === 7;
    });
    assert.equal(sum(await samples()), 0);
    await line.open();
    await live(page);
    const after = await samples();
    assert.equal(sum(after), 7);
    assert.ok(after.length >= before + 3, `${before} samples before, ${after.length} after`);
    await close(page);
  } finally {
    await line.cut();
    await own.end();
    await deleteQueues([queue]);
  }
});

test("a broker that is killed is seen, and its return too", { timeout, skip: !hasServer && "no rabbitmq-server to start a node of" }, async () => {
  const node = await new Node().start();
  const own = await startDaemon({ pools: pool("work", "work", ["/bin/true"]), broker: node.url });
  try {
    const page = await open(browser, own, { pool: "work" });
    await live(page);
    await until("the pool is at rest", async () => ["idle", "active"].includes((await row(page, "work")).state));
    await node.kill();
    await until("the pool is disconnected", async () => (await row(page, "work")).state === "disconnected");
    await assertAccessible(page, "disconnected");
    // The page itself is not cut off.
    assert.ok(await page.locator("#link.good").isVisible());
    await node.again();
    await until("the pool works again", async () => ["idle", "active"].includes((await row(page, "work")).state), 90);
    await publish("work", [{}], node.url);
    await until("a job is done", async () => (await page.locator("#outcomes tr").first().textContent()).endsWith("11"));
    await close(page);
  } finally {
    await own.end();
    await node.end();
  }
});

// The last: it looks back on the others.
const isPart = process.execArgv.some((argument) => /^--test-(name|skip|only)/.test(argument));
test("no button is left that no test has pressed", { skip: isPart && "only some tests ran" }, () => {
  assert.ok(buttons.seen.size > 20, [...buttons.seen].join());
  assert.deepEqual([...buttons.seen].filter((name) => !buttons.pressed.has(name)), []);
});
