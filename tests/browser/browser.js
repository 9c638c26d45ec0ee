// Headless Chromium over the DevTools protocol, for the tests of this folder: pages that note what
// they complain about and what they fetch. SUITE_BROWSER names the binary.
'use strict';

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const path = require('node:path');
const { WebSocket } = require('ws');

const BROWSER = process.env.SUITE_BROWSER || 'chromium';
const FLAGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
  '--no-first-run', '--disable-background-networking', '--remote-debugging-port=0', 'about:blank'];
const DOMAINS = ['Page', 'Runtime', 'Log', 'Network'];
const ANSWER_MS = 20_000;

/** Starts the browser with a profile in this folder. */
async function launch(folder) {
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
  const ended = once(child, 'exit');
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
  const close = async () => {
    socket.terminate();
    // The browser leads a group of its own, which ends as a whole.
    process.kill(-child.pid, 'SIGKILL');
    await ended;
  };
  return { process: child, pages, ask, close };
}

/** Opens a page in a window of its own, and waits until it is loaded. `isApart`: it shares no
 *  storage with the others. */
async function open(browser, url, { width, height = 900, scale = 1, scheme = 'light', isApart }) {
  const context = isApart ? await browser.ask('Target.createBrowserContext') : {};
  const target = { url: 'about:blank', newWindow: true, ...context };
  const { targetId } = await browser.ask('Target.createTarget', target);
  const attached = await browser.ask('Target.attachToTarget', { targetId, flatten: true });
  const page = { complaints: [], requests: [] };
  page.ask = (method, params = {}) => browser.ask(method, params, attached.sessionId);
  let loaded = () => {};
  page.hear = (method, params) => {
    const details = params.exceptionDetails;
    const complaint = params.entry?.text ?? details?.exception?.description ?? details?.text
      ?? (method === 'Runtime.consoleAPICalled' && JSON.stringify(params.args));
    if (complaint) page.complaints.push(complaint);
    if (method === 'Network.requestWillBeSent') page.requests.push(params.request.url);
    if (method === 'Network.webSocketCreated') page.requests.push(params.url);
    if (method === 'Page.javascriptDialogOpening') page.complaints.push(params.message);
    if (method === 'Page.loadEventFired') loaded();
  };
  browser.pages.set(attached.sessionId, page);
  page.value = async (expression) => {
    const asked = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await page.ask('Runtime.evaluate', asked);
    assert.ok(!exceptionDetails, `${expression}\n${exceptionDetails?.exception?.description}`);
    return result.value;
  };
  page.texts = (selector) => page.value(
    `[...document.querySelectorAll('${selector}')].map((found) => found.textContent).join('\\n')`);
  page.go = async (method, params) => {
    const done = new Promise((resolve) => { loaded = resolve; });
    await page.ask(method, params);
    await done;
  };
  for (const domain of DOMAINS) await page.ask(`${domain}.enable`);
  const size = { width, height, deviceScaleFactor: scale, mobile: width < 600 };
  await page.ask('Emulation.setDeviceMetricsOverride', size);
  const features = [{ name: 'prefers-color-scheme', value: scheme }];
  await page.ask('Emulation.setEmulatedMedia', { features });
  await page.go('Page.navigate', { url });
  return page;
}

module.exports = { launch, open };
