// Makes the pictures of docs/dashboard.md: three pools on a real broker, two bursts of jobs within some minutes, a
// light and a dark page.

import { mkdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { TOKEN, deleteQueues, launch, live, open, publish, record, startDaemon, unique } from "./support.mjs";

const MINUTES = Number(process.env.MINUTES ?? 4.4);
const folder = fileURLToPath(new URL("../../docs/images/", import.meta.url));
const queues = Object.fromEntries(["thumbnails", "invoices", "mail"].map((name) => [name, unique(name)]));
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
const pools = pool("thumbnails", 5, 20, 'read -r file; sleep 0.5; case $file in *7) echo "cannot read $file: not a picture" >&2; exit 1;; esac')
  + pool("invoices", 10, 6, "sleep 1") + pool("mail", 20, 4, "sleep 0.2");

// The policy lab on the day of examples/traces.
async function lab(page, path) {
  record(daemon, "thumbnails");
  await page.bringToFront();
  await page.getByRole("button", { name: "Try another" }).click();
  await page.getByLabel("kind").selectOption("target_wait");
  await page.getByLabel("max", { exact: true }).press("Enter");
  await page.locator("#token").fill(TOKEN);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.locator("#lab svg").waitFor();
  await page.waitForTimeout(500);
  await page.locator("#lab").screenshot({ path });
  console.log(`${path}: ${Math.ceil(statSync(path).size / 1024)} KiB`);
}

mkdirSync(folder, { recursive: true });
const daemon = await startDaemon({ pools });
const browser = await launch();
try {
  // After the pages are open, so that they show both bursts from the beginning.
  const pages = [];
  for (const colorScheme of ["light", "dark"]) {
    const page = await open(browser, daemon, { pool: "thumbnails", viewport: { width: 1360, height: 1000 }, colorScheme });
    await live(page);
    pages.push(page);
  }
  const end = Date.now() + MINUTES * 60_000;
  for (let n = 0; Date.now() < end; n += 1) {
    // Two bursts, with a quiet time between them.
    const height = Math.max(0, Math.sin(((n % 55) / 55) * Math.PI * 2));
    const files = (count, name) => Array.from({ length: count }, (_, k) => ({ body: `${name}-${n}${k % 10}${(n * k) % 8}.png\n`.replace(".png", k % 9 ? ".png" : "7"), id: `${name}-${n}-${k}` }));
    await publish(queues.thumbnails, files(Math.round(height * 45), "photo"));
    await publish(queues.invoices, files(n % 9 === 0 ? 12 : 0, "invoice"));
    await publish(queues.mail, files(n % 4 === 0 ? 8 : 1, "mail"));
    await new Promise((go) => setTimeout(go, 2000));
  }
  for (const [page, name] of [[pages[0], "dashboard"], [pages[1], "dashboard-dark"]]) {
    await page.bringToFront();
    await page.waitForTimeout(2500);
    const path = `${folder}${name}.png`;
    await page.screenshot({ path });
    console.log(`${path}: ${Math.ceil(statSync(path).size / 1024)} KiB`);
  }
  await lab(pages[0], `${folder}dashboard-lab.png`);
} finally {
  await browser.close();
  await daemon.end();
  await deleteQueues(Object.values(queues));
}
