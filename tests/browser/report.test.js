// The HTML report of `tidemill bench --report`, made by real runs and read in headless Chromium
// over the DevTools protocol: nothing in the console, nothing fetched, everything there, and what
// strangers say is only text. SUITE_SERVER and SUITE_BROWSER name the binaries.
'use strict';

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { promisify } = require('node:util');
const { WebSocketServer } = require('ws');
const { start } = require('../clients/node/server.js');
const { launch, open } = require('./browser.js');

const VIEWS = [{ width: 390 }, { width: 1280, scheme: 'dark' }, { width: 1280 }];
const HOSTILE = '</script><img src=x onerror=alert(1)>';
const LIMIT = { timeout: 60_000 };
let browser, folder, server;

before(async () => {
  folder = await fs.mkdtemp(path.join(os.tmpdir(), 'tidemill-report-'));
  [server, browser] = await Promise.all([start(), launch(folder)]);
}, LIMIT);
after(async () => {
  await Promise.all([browser?.close(), server?.stop()]);
  await fs.rm(folder, { recursive: true, force: true, maxRetries: 9 });
}, LIMIT);

/** Makes a run that ends with this code, and opens its report in all views. Gives the last. */
async function report(code, mode, url, ...flags) {
  const file = path.join(folder, `${mode}.html`);
  const args = ['bench', mode, url, '--json', '--report', file, '--timeout', '5s', ...flags];
  const done = await promisify(execFile)(process.env.SUITE_SERVER, args).catch((error) => error);
  assert.equal(done.code ?? 0, code, `${done.stderr}${done.stdout}`);
  let page;
  for (const view of VIEWS) {
    page = await open(browser, `file://${file}`, view);
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
