// The HTML report of `tidemill bench --report`, made by real runs and read in headless Chromium
// over the DevTools protocol: nothing in the console, nothing fetched, everything there, and what
// strangers say is only text. SUITE_SERVER and SUITE_BROWSER name the binaries.
'use strict';

const assert = require('node:assert/strict');
const { execFile, spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { promisify } = require('node:util');
const { WebSocket, WebSocketServer } = require('ws');
const { start } = require('../clients/node/server.js');

const BROWSER = process.env.SUITE_BROWSER || 'chromium';
const FLAGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
  '--no-first-run', '--disable-background-networking', '--remote-debugging-port=0', 'about:blank'];
const DOMAINS = ['Page', 'Runtime', 'Log', 'Network'];
const VIEWS = [{ width: 390 }, { width: 1280, scheme: 'dark' }, { width: 1280 }];
const HOSTILE = '</script><img src=x onerror=alert(1)>';
const LIMIT = { timeout: 60_000 };
const ANSWER_MS = 20_000;
let browser, folder, server;

before(async () => {
  folder = await fs.mkdtemp(path.join(os.tmpdir(), 'tidemill-report-'));
  [server, browser] = await Promise.all([start(), launched()]);
}, LIMIT);
after(async () => {
  browser?.socket.terminate();
  // The browser leads a group of its own, which ends as a whole.
  if (browser) process.kill(-browser.process.pid, 'SIGKILL');
  await Promise.all([browser?.ended, server?.stop()]);
  await fs.rm(folder, { recursive: true, force: true, maxRetries: 9 });
}, LIMIT);

async function launched() {
  const args = [`--user-data-dir=${path.join(folder, 'profile')}`, ...FLAGS];
  const child = spawn(BROWSER, args, { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  const endpoint = await new Promise((resolve, reject) => {
    let said = '';
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`the browser left with ${code}: ${said}`)));
    child.stderr.on('data', (chunk) => {
      said += chunk;
      const found = /DevTools listening on (ws:\S+)/.exec(said);
      if (found) resolve(found[1]);
    });
  });
  const socket = new WebSocket(endpoint);
  const waiting = new Map();
  const pages = new Map();
  socket.on('message', (text) => {
    const { id, method, params, sessionId, result, error } = JSON.parse(text);
    if (id === undefined) pages.get(sessionId)?.hear(method, params);
    else if (error) waiting.get(id).reject(new Error(error.message));
    else waiting.get(id).resolve(result);
  });
  await once(socket, 'open');
  let last = 0;
  const ask = (method, params, sessionId) => new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no answer to ${method}`)), ANSWER_MS);
    waiting.set(++last, { resolve: (result) => { clearTimeout(late); resolve(result); }, reject });
    socket.send(JSON.stringify({ id: last, method, params, sessionId }));
  });
  return { process: child, ended: once(child, 'exit'), socket, pages, ask };
}

/** Opens a file, and waits until it is loaded. */
async function open(file, { width, scheme = 'light' }) {
  const { targetId } = await browser.ask('Target.createTarget', { url: 'about:blank' });
  const attached = await browser.ask('Target.attachToTarget', { targetId, flatten: true });
  const page = { complaints: [], requests: [] };
  page.ask = (method, params = {}) => browser.ask(method, params, attached.sessionId);
  const loaded = new Promise((resolve) => {
    page.hear = (method, params) => {
      const details = params.exceptionDetails;
      const complaint = params.entry?.text ?? details?.exception?.description ?? details?.text
        ?? (params.args && JSON.stringify(params.args));
      if (complaint) page.complaints.push(complaint);
      if (method === 'Network.requestWillBeSent') page.requests.push(params.request.url);
      if (method === 'Page.javascriptDialogOpening') page.complaints.push(params.message);
      if (method === 'Page.loadEventFired') resolve();
    };
  });
  browser.pages.set(attached.sessionId, page);
  page.value = async (expression) => {
    const asked = { expression, returnByValue: true };
    const { result, exceptionDetails } = await page.ask('Runtime.evaluate', asked);
    assert.equal(exceptionDetails, undefined, expression);
    return result.value;
  };
  page.texts = (selector) => page.value(
    `[...document.querySelectorAll('${selector}')].map((found) => found.textContent).join('\\n')`);
  for (const domain of DOMAINS) await page.ask(`${domain}.enable`);
  const size = { width, height: 900, deviceScaleFactor: 1, mobile: width < 600 };
  await page.ask('Emulation.setDeviceMetricsOverride', size);
  const features = [{ name: 'prefers-color-scheme', value: scheme }];
  await page.ask('Emulation.setEmulatedMedia', { features });
  await page.ask('Page.navigate', { url: `file://${file}` });
  await loaded;
  return page;
}

/** Makes a run that ends with this code, and opens its report in all views. Gives the last. */
async function report(code, mode, url, ...flags) {
  const file = path.join(folder, `${mode}.html`);
  const args = ['bench', mode, url, '--json', '--report', file, '--timeout', '5s', ...flags];
  const done = await promisify(execFile)(process.env.SUITE_SERVER, args).catch((error) => error);
  assert.equal(done.code ?? 0, code, `${done.stderr}${done.stdout}`);
  let page;
  for (const view of VIEWS) {
    page = await open(file, view);
    assert.deepEqual(page.complaints, []);
    assert.deepEqual(page.requests, [`file://${file}`]);
    const isWide = await page.value('document.documentElement.scrollWidth > innerWidth');
    assert.equal(isWide, false, `it scrolls sideways when ${view.width} wide`);
  }
  page.words = await page.value('document.body.innerText');
  assert.doesNotMatch(page.words, /NaN|undefined|Infinity|\[object|There is no run/);
  assert.equal(await page.texts('title'), `tidemill bench ${mode} ${url}`);
  return { page, facts: JSON.parse(done.stdout) };
}

test('an open loop is drawn with its latencies and its course', LIMIT, async () => {
  const { page, facts } = await report(0, 'echo', server.url('/echo'), '--connections', '20',
    '--rate', '2000', '--duration', '1500ms', '--server-pid', String(server.process.pid));
  const received = facts.messages.received.toLocaleString('en-US');
  for (const part of ['20 connections', 'Complete', 'Latency by percentile', 'corrected',
    'Messages answered a second', 'CPU, in cores', 'Percentiles', 'Phases', 'exchange', received]) {
    assert.ok(page.words.includes(part), `${part} in ${page.words}`);
  }
  const curves = await page.value(`[...document.querySelectorAll('figure')].map((figure) =>
    [...figure.querySelectorAll('.plot path.line')].map((path) => path.getAttribute('d')))`);
  assert.ok(curves.length >= 3);
  assert.ok(curves.every((lines) => lines.length && lines.every((d) => /^M[-\dL. ]+$/.test(d))));
});

test('values can be read by pointer and by keys', LIMIT, async () => {
  const url = server.url('/echo');
  const { page } = await report(0, 'echo', url, '--connections', '5', '--duration', '600ms');
  const { x, y, width, height } = await page.value(`(() => {
    const plot = document.querySelector('.plot');
    plot.scrollIntoView({ block: 'center' });
    plot.focus();
    return plot.getBoundingClientRect().toJSON();
  })()`);
  const point = { type: 'mouseMoved', x: x + width / 2, y: y + height / 2 };
  await page.ask('Input.dispatchMouseEvent', point);
  assert.match(await page.texts('.tip:not([hidden])'), /\d/);
  const press = (key) => page.ask('Input.dispatchKeyEvent', { type: 'keyDown', key });
  await press('End');
  assert.match(await page.texts('[role=status]'), /max/);
  await press('Escape');
  assert.equal(await page.texts('.tip:not([hidden])'), '');
  assert.deepEqual(page.complaints, []);
});

test('a held run is drawn with its probes', LIMIT, async () => {
  const { page } = await report(0, 'hold', server.url('/echo'), '--connections', '500', '--ramp',
    '500', '--duration', '500ms', '--sweep', '50', '--pings', '50');
  for (const part of ['Handshake time by percentile', 'Open connections', 'sweep', 'pings']) {
    assert.ok(page.words.includes(part), `${part} in ${page.words}`);
  }
});

test('what a hostile server says is text and nothing else', LIMIT, async (context) => {
  const hostile = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  context.after(() => hostile.close());
  await once(hostile, 'listening');
  hostile.on('connection', (socket) => socket.close(4000, HOSTILE));
  const url = `ws://127.0.0.1:${hostile.address().port}/?${HOSTILE.replaceAll(' ', '/')}`;
  const { page } = await report(1, 'hold', url, '--connections', '3', '--duration', '100ms');
  assert.equal(await page.value(`document.querySelectorAll('img').length`), 0);
  assert.match(page.words, /3 connections were lost/);
  assert.ok((await page.texts('table')).includes(`4000 ${HOSTILE}`));
});

test('a run with nothing to draw says what went wrong', LIMIT, async () => {
  for (const mode of ['echo', 'hold']) {
    const flags = ['--connections', '2', '--duration', '0'];
    const { page } = await report(1, mode, server.url('/nowhere'), ...flags);
    assert.match(page.words, /2 of 2 connections could not be opened/);
    assert.match(await page.texts('table'), /404/);
  }
});
