// Makes the pictures of docs/dashboard.md: three pools on a real broker, two bursts of jobs within some minutes, and a
// third that has begun. A light, a dark and a narrow page, and a policy that is tried.

import { mkdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { TOKEN, deleteQueues, launch, live, open, publish, record, startDaemon } from "./support.mjs";

const MINUTES = Number(process.env.MINUTES ?? 4.4);
const folder = fileURLToPath(new URL("../../docs/images/", import.meta.url));
const queues = Object.fromEntries(["thumbnails", "invoices", "mail"].map((name) => [name, `${name}-${process.pid}`]));
const pool = (name, jobs, max, command) => `
[pools.${name}]
queue = "${queues[name]}"
declare = "classic"
[pools.${name}.policy]
kind = "backlog"
jobs_per_worker = ${jobs}
max = ${max}
[pools.${name}.retry]
max_attempts = 2
backoff = "1s"
backoff_max = "2s"
[pools.${name}.runner]
command = ["/bin/sh", "-c", ${JSON.stringify(command)}]
`;
const pools = pool("thumbnails", 5, 20, 'read -r file; sleep 0.5; case $file in *.txt) echo "cannot read $file: not a picture" >&2; exit 1;; esac')
  + pool("invoices", 20, 20, "sleep 2") + pool("mail", 20, 4, "sleep 0.2");

async function picture(page, name, part) {
  await page.bringToFront();
  await page.evaluate(() => document.activeElement.blur());
  await page.waitForTimeout(2500);
  const path = `${folder}${name}.png`;
  // With the space around the part.
  const box = part && (await page.locator(part).evaluate((element) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    return { x: left + scrollX - 14, y: top + scrollY, width: width + 28, height: height + 14 };
  }));
  await page.screenshot(box ? { path, clip: box, fullPage: true } : { path });
  console.log(`${path}: ${Math.ceil(statSync(path).size / 1024)} KiB`);
}

// The policy lab on the day of examples/traces: jobs that wait longer than they should at the peaks, and a policy that
// keeps to a waiting time.
async function lab(page) {
  record(daemon, "invoices");
  await page.bringToFront();
  await page.getByRole("button", { name: "invoices", exact: true }).click();
  await page.getByRole("button", { name: "Try another" }).click();
  await page.getByLabel("kind").selectOption("target_wait");
  await page.getByLabel("target", { exact: true }).fill("20s");
  await page.getByLabel("target", { exact: true }).press("Enter");
  await page.locator("#token").fill(TOKEN);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.locator("#lab svg").waitFor({ timeout: 60_000 });
  await picture(page, "dashboard-lab", "#lab");
}

// Each two seconds. Two bursts, with a quiet time between them.
async function send(n) {
  const height = Math.max(0, Math.sin(((n % 55) / 55) * Math.PI * 2));
  // One of fifty is not a picture.
  const files = (count, name) => Array.from({ length: count }, (_, k) => ({ body: `${name}-${n}${k}.${(n * 7 + k) % 50 ? "png" : "txt"}\n`, id: `${name}-${n}-${k}` }));
  await publish(queues.thumbnails, files(Math.round(height * 45), "photo"));
  await publish(queues.invoices, files(n % 9 === 0 ? 12 : 0, "invoice"));
  await publish(queues.mail, files(n % 4 === 0 ? 8 : 1, "mail"));
  await new Promise((go) => setTimeout(go, 2000));
}

mkdirSync(folder, { recursive: true });
const daemon = await startDaemon({ pools });
const browser = await launch();
let isOver = false;
try {
  // After the pages are open, so that they show both bursts from the beginning.
  const pages = [];
  for (const options of [{}, { colorScheme: "dark" }, { viewport: { width: 390, height: 844 } }]) {
    const page = await open(browser, daemon, { pool: "thumbnails", viewport: { width: 1360, height: 1000 }, ...options });
    await live(page);
    pages.push(page);
  }
  const end = Date.now() + MINUTES * 60_000;
  let n = 0;
  for (; Date.now() < end; n += 1) await send(n);
  // Jobs run while the pictures are made.
  const sending = (async () => {
    for (; !isOver; n += 1) await send(n);
  })();
  await picture(pages[0], "dashboard");
  await picture(pages[1], "dashboard-dark");
  await pages[2].evaluate(() => document.querySelector("#detail").scrollIntoView());
  await picture(pages[2], "dashboard-narrow");
  isOver = true;
  await sending;
  await lab(pages[0]);
} finally {
  isOver = true;
  await browser.close();
  await daemon.end();
  await deleteQueues(Object.values(queues));
}
