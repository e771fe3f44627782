// What the tests start and stop: the program, a broker's node, a browser, and messages in queues.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import amqp from "amqplib";
import { chromium } from "playwright-core";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

export const URL_OF_BROKER = process.env.AMQP_URL;
export const TOKEN = "s3cret-of-the-tests";

// A name that no other run has.
export const unique = (name) => `dashboard-${process.pid}-${name}`;

export function freePort() {
  return new Promise((done, fail) => {
    const server = net.createServer().on("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

// Waits for something to be so, looking again and again.
export async function until(what, look, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const seen = await look().catch((error) => error);
    if (seen && !(seen instanceof Error)) return seen;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}${seen instanceof Error ? ` (${seen.message})` : ""}`);
    await new Promise((go) => setTimeout(go, 100));
  }
}

// ---- The program

export class Daemon {
  // `pools` is TOML.
  constructor({ pools, port, broker = URL_OF_BROKER, host = "127.0.0.1" }) {
    this.folder = mkdtempSync(join(tmpdir(), "tidegate-dashboard-"));
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.config = join(this.folder, "tidegate.toml");
    const token = join(this.folder, "token");
    writeFileSync(token, `${TOKEN}\n`, { mode: 0o600 });
    writeFileSync(this.config, `[broker]\nurl = ${JSON.stringify(broker)}\n[http]\nlisten = "${host}:${port}"\nsocket = "${this.folder}/socket"\nstate_dir = "${this.folder}/state"\ntoken_file = "${token}"\n${pools}`, { mode: 0o600 });
  }

  async start() {
    const log = openSync(join(this.folder, "log"), "a");
    const program = process.env.TIDEGATE_BIN ?? join(ROOT, "target/debug/tidegate");
    this.process = spawn(program, ["--config", this.config, "run"], { stdio: ["ignore", log, log] });
    this.ended = new Promise((done) => this.process.on("exit", done));
    const health = async () => (await fetch(`${this.url}/healthz`)).ok;
    let isOver = false;
    this.ended.then(() => (isOver = true));
    await until("the daemon answers", async () => isOver || health());
    if (isOver) throw new Error(`the daemon has ended:\n${this.log()}`);
    return this;
  }

  async pool(name) {
    return (await fetch(`${this.url}/api/v1/pools/${name}`)).json();
  }

  log() {
    return readFileSync(join(this.folder, "log"), "utf8").slice(-2000);
  }

  async stop() {
    this.process?.kill("SIGTERM");
    await this.ended;
  }

  async end() {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

// What lies between a browser and a daemon. It can be cut while both live.
export class Line {
  constructor(daemon) {
    this.target = daemon.port;
    this.sockets = new Set();
  }

  // Again on the port of before, if it was cut.
  async open() {
    this.server = net.createServer((near) => {
      const far = net.connect(this.target, "127.0.0.1");
      for (const socket of [near, far]) {
        this.sockets.add(socket);
        socket.on("error", () => {}).on("close", () => (near.destroy(), far.destroy()));
      }
      near.pipe(far).pipe(near);
    });
    await new Promise((done, fail) => this.server.on("error", fail).listen(this.port ?? 0, "127.0.0.1", done));
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  async cut() {
    const closed = new Promise((done) => this.server.close(done));
    for (const socket of this.sockets) socket.destroy();
    this.sockets.clear();
    await closed;
  }
}

export async function startDaemon(options) {
  return new Daemon({ port: await freePort(), ...options }).start();
}

// Records the day of `examples/traces` for a pool, as if it had ended now. With fewer hours, its end.
export function record(daemon, pool, hours = 24) {
  const rows = readFileSync(join(ROOT, "examples/traces/day.csv"), "utf8").trim().split("\n").slice(1);
  const wanted = rows.slice(-hours * 12);
  const begin = Date.now() - wanted.length * 300_000;
  const lines = wanted.map((row, n) => `${new Date(begin + n * 300_000).toISOString().slice(0, 19)}Z,${row.split(",")[1]}`);
  mkdirSync(join(daemon.folder, "state/recordings"), { recursive: true });
  writeFileSync(join(daemon.folder, `state/recordings/${pool}.csv`), `time,arrivals\n${lines.join("\n")}\n`);
}

// ---- Messages

export async function publish(queue, messages, broker = URL_OF_BROKER) {
  const connection = await amqp.connect(broker);
  const channel = await connection.createConfirmChannel();
  for (const { body = "x", id } of messages) channel.sendToQueue(queue, Buffer.from(body), { persistent: true, messageId: id, headers: { timestamp_in_ms: Date.now() } });
  await channel.waitForConfirms();
  await connection.close();
}

export async function deleteQueues(queues) {
  const connection = await amqp.connect(URL_OF_BROKER);
  for (const queue of queues) {
    for (const name of [queue, `${queue}.dead`, ...["1s", "2s"].map((level) => `${queue}.retry.${level}`)]) {
      const channel = await connection.createChannel();
      channel.on("error", () => {});
      await channel.deleteQueue(name).catch(() => {});
    }
  }
  await connection.close();
}

// ---- A node of our own, to be killed

const SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const EPMD = "/usr/bin/epmd";
export const hasServer = existsSync(SERVER) && existsSync(EPMD);

export class Node {
  async start() {
    const folder = mkdtempSync(join(tmpdir(), "tidegate-dashboard-node-"));
    const [port, dist, epmd] = [await freePort(), await freePort(), await freePort()];
    this.url = `amqp://guest:guest@127.0.0.1:${port}/%2f`;
    writeFileSync(join(folder, "rabbitmq.conf"), `listeners.tcp.1 = 127.0.0.1:${port}\ndisk_free_limit.absolute = 50MB\n`);
    writeFileSync(join(folder, "enabled_plugins"), "[].");
    const env = { ...process.env, FOLDER: folder, SERVER, EPMD, NODE: `tidegate-dashboard-${process.pid}-${port}@localhost`, DIST_PORT: dist, EPMD_PORT: epmd };
    this.keeper = spawn("bash", [join(ROOT, "tests/it/support/private_node.sh")], { env, stdio: ["pipe", "pipe", "ignore"], detached: true });
    this.answers = createInterface({ input: this.keeper.stdout })[Symbol.asyncIterator]();
    await this.tell("start");
    await this.answersClients();
    return this;
  }

  async tell(order) {
    this.keeper.stdin.write(`${order}\n`);
    await this.answers.next();
  }

  kill() {
    return this.tell("kill");
  }

  async again() {
    await this.tell("start");
    await this.answersClients();
  }

  answersClients() {
    return until("the node answers", async () => {
      await (await amqp.connect(this.url)).close();
      return true;
    }, 120);
  }

  async end() {
    const ended = new Promise((done) => this.keeper.on("exit", done));
    this.keeper.stdin.end();
    await ended;
  }
}

// ---- The browser

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

// What the tests have seen of buttons, and which of them they have pressed while they did something. Written by the
// pages, read by the last test.
export const buttons = { seen: new Set(), pressed: new Set() };

// Runs in the page. A pool's row and a job's row each count as one button.
function watchButtons() {
  window.nameOfButton = (button) => {
    if (button.closest("#rows")) return "a pool";
    if (button.closest("#jobs")) return "stop a job";
    return [button.closest("dialog")?.id, button.textContent].filter(Boolean).join(": ");
  };
  addEventListener("click", ({ target }) => {
    const button = target.closest?.("button");
    if (button && button.getAttribute("aria-disabled") !== "true") window.buttonPressed(window.nameOfButton(button));
  }, true);
}

// A page that fails its test where a script fails, or something is blocked or asked of anybody else.
export async function open(browser, daemon, { pool = "", path = "/", ...context } = {}) {
  const page = await browser.newPage({ viewport: { width: 1400, height: 1000 }, ...context });
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (message) => /content security policy|refused to/i.test(message.text()) && page.faults.push(message.text()));
  page.on("request", (request) => request.url().startsWith(daemon.url) || page.faults.push(`asked ${request.url()}`));
  await page.exposeFunction("buttonPressed", (name) => void buttons.pressed.add(name));
  await page.addInitScript(watchButtons);
  // A route answers no challenge.
  if (process.env.DASHBOARD_FILES && !context.httpCredentials) await page.route(/\/dashboard\/|\/(#.*)?$/, fromTree);
  await page.goto(`${daemon.url}${path}${pool && `#${pool}`}`);
  return page;
}

export async function close(page) {
  const names = await page.evaluate(() => [...document.querySelectorAll("button")].map((button) => window.nameOfButton(button)));
  for (const name of names) buttons.seen.add(name);
  assert.deepEqual(page.faults, []);
  await page.close();
}

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Fails where axe finds something serious on the page as it is, in light and in dark colours.
export async function assertAccessible(page, state) {
  // By the debugger, which the content security policy does not stop.
  await page.evaluate(AXE);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await page.evaluate(() => axe.run());
    const found = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    assert.deepEqual(found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`), [], `${state}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: null });
}

// With DASHBOARD_FILES the page is the one in that folder, in a program that was built before it was changed.
async function fromTree(route) {
  const response = await route.fetch();
  const file = new URL(response.url()).pathname.split("/").at(-1) || "index.html";
  await route.fulfill({ response, body: readFileSync(join(process.env.DASHBOARD_FILES, file), "utf8") });
}

export const live = (page, seconds = 30) => page.locator("#link.good").waitFor({ timeout: seconds * 1000 });

// The numbers of a pool's row, by name of their column.
export async function row(page, pool) {
  const cells = await page.locator(`tr[data-pool="${pool}"] > *`).allTextContents();
  const [live, expected] = cells[4].split(" / ").map(Number);
  return { state: cells[1], ready: Number(cells[2].replaceAll(",", "")), live, expected };
}
