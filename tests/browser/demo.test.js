// The chat at /demo in headless Chromium, on the real server: people who see each other, what they
// missed, and what strangers cannot do to them. Their pages must not complain nor fetch anything
// but themselves. SUITE_SERVER and SUITE_BROWSER name the binaries.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const fs = require('node:fs/promises');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { connect, start } = require('../clients/node/server.js');
const { launch, open } = require('./browser.js');

const LIMIT = { timeout: 90_000 };
const WAIT_MS = 15_000;
const DESK = { width: 1280 };
const HOSTILE = '<img src=x onerror=alert(1)></script><script>alert(2)</script>';
let browser, folder, server;

before(async () => {
  folder = await fs.mkdtemp(path.join(os.tmpdir(), 'tidemill-demo-'));
  [server, browser] = await Promise.all([start(), launch(folder)]);
}, LIMIT);
after(async () => {
  await browser?.close();
  await server?.stop();
  await fs.rm(folder, { recursive: true, force: true, maxRetries: 9 });
}, LIMIT);

/** Somebody in a room, in a window of their own. Without a name: whom the page asks for one. */
async function person(room, name, view = DESK, port = server.port) {
  const page = await open(browser, `http://127.0.0.1:${port}/demo#${room}`, { ...view, isApart: true });
  /** Waits until an expression holds, which is looked at whenever the page changes. */
  page.until = (expression) => page.value(`new Promise((resolve, reject) => {
    const look = () => { if (${expression}) { watcher.disconnect(); clearTimeout(late); resolve(); } };
    const watcher = new MutationObserver(look);
    const late = setTimeout(() => reject(new Error('never: ' + ${JSON.stringify(expression)}
      + ' in ' + document.body.innerText)), ${WAIT_MS});
    watcher.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
    look();
  })`);
  page.shows = (selector, text) => page.until(`[...document.querySelectorAll('${selector}')]
    .some((found) => found.textContent.includes(${JSON.stringify(text)}))`);
  page.type = (text) => page.value(`byId('text').focus(); byId('text').value = ''`)
    .then(() => page.ask('Input.insertText', { text }));
  page.say = async (text) => {
    await page.type(text);
    await page.ask('Input.dispatchKeyEvent', { type: 'keyDown', key: 'Enter', code: 'Enter' });
  };
  page.said = async () => (await page.texts('.message .text')).split('\n').filter(Boolean);
  await page.shows('#state', 'connected');
  if (!name) return page;
  await page.value(`byId('name').value = ${JSON.stringify(name)}`);
  await page.value(`byId('ask').querySelector('button').click()`);
  await page.shows('#rename', name.slice(0, 32));
  return page;
}

/** Nothing in the console, and nothing from elsewhere. */
function isClean(page, port = server.port) {
  assert.deepEqual(page.complaints, []);
  const own = [`http://127.0.0.1:${port}/demo`, `ws://127.0.0.1:${port}/connection/websocket`];
  for (const request of page.requests) {
    assert.ok(own.includes(request.replace(/#.*$/, '')) || request.startsWith('data:'), request);
  }
}

test('two people see each other, talk, and see each other type', LIMIT, async () => {
  const ada = await person('meet', 'Ada');
  await ada.until(`!byId('empty').hidden`);
  await ada.until(`byId('people').innerText.includes('you')`);
  const ben = await person('meet', 'Ben');
  await ada.shows('#people li', 'Ben');
  await ben.shows('#people li', 'Ada');
  await ada.shows('#count', '2');

  await ada.type('what I am about to say');
  await ben.shows('#typing', 'Ada is typing');
  await ada.say('Good morning');
  await ben.shows('.theirs .text', 'Good morning');
  await ben.until(`byId('typing').textContent === ''`);
  await ben.say('Hello Ada');
  await ada.shows('.theirs .text', 'Hello Ada');
  await ben.type('and then I think');
  await ada.shows('#typing', 'Ben is typing');
  // He says nothing more, and that ends, too.
  await ada.until(`byId('typing').textContent === ''`);

  for (const page of [ada, ben]) {
    assert.deepEqual(await page.said(), ['Good morning', 'Hello Ada']);
    await page.until(`!document.querySelector('.waiting')`);
  }
  assert.equal(await ada.texts('.mine .text'), 'Good morning');
  assert.equal(await ben.texts('.mine .text'), 'Hello Ada');
  assert.equal(await ben.texts('.theirs .who'), 'Ada');

  await ben.value(`byId('name').value = 'Benjamin'; askName()`);
  await ben.value(`byId('name').value = 'Benjamin'; byId('ask').querySelector('button').click()`);
  await ada.shows('#people li', 'Benjamin');
  await ben.ask('Page.close');
  await ada.shows('#count', '1');
  isClean(ada);
  isClean(ben);
});

test('a reload shows the history, and what was said meanwhile', LIMIT, async () => {
  const ada = await person('reload', 'Ada');
  const ben = await person('reload', 'Ben');
  await ada.say('one');
  await ben.shows('.text', 'one');
  await ben.say('two');
  await ada.shows('.text', 'two');
  const from = await ada.value('location.href');
  await ada.go('Page.navigate', { url: 'about:blank' });
  await ben.shows('#count', '1');
  await ben.say('three');
  await ben.say('four');
  await ben.until(`document.querySelectorAll('.mine:not(.waiting)').length === 3`);
  await ada.go('Page.navigate', { url: from });
  await ada.shows('.text', 'four');
  assert.deepEqual(await ada.said(), ['one', 'two', 'three', 'four']);
  assert.equal(await ada.texts('.note'), '2 messages since you were here');
  assert.equal(await ada.texts('.missed .text'), 'three\nfour');
  assert.equal(await ada.texts('.mine .text'), 'one');
  // The name was not asked for again, and others know it.
  await ben.shows('#people li', 'Ada');
  await ada.go('Page.reload');
  await ada.shows('.text', 'four');
  assert.deepEqual(await ada.said(), ['one', 'two', 'three', 'four']);
  assert.equal(await ada.texts('.note'), '');
  isClean(ada);
  isClean(ben);
});

test('a cut connection gets what it missed, once', LIMIT, async (context) => {
  const wire = await cuttable(server.port);
  context.after(() => wire.close());
  const ada = await person('cut', 'Ada', DESK, wire.port);
  const ben = await person('cut', 'Ben');
  await ben.say('before');
  await ada.shows('.text', 'before');
  const missed = [];
  for (let round = 1; round <= 3; round += 1) {
    wire.cut();
    await ada.shows('.note.lost', 'Connection lost');
    await ben.shows('#count', '1');
    await ada.say(`said without a connection ${round}`);
    for (const word of ['a', 'b', 'c']) await ben.say(`missed ${round}${word}`);
    await ben.until(`document.querySelectorAll('.mine:not(.waiting)').length === ${1 + 3 * round}`);
    wire.mend();
    await ada.shows('.note.back', '3 messages were missed');
    await ben.shows('.theirs .text', `said without a connection ${round}`);
    await ada.until(`!document.querySelector('.waiting')`);
    missed.push(...['a', 'b', 'c'].map((word) => `missed ${round}${word}`),
      `said without a connection ${round}`);
    await ada.until(`document.querySelectorAll('.note.back').length === ${round}`);
  }
  for (const page of [ada, ben]) assert.deepEqual(await page.said(), ['before', ...missed]);
  isClean(ben);
  // Only the browser itself has said that it could not connect.
  const own = /^(WebSocket connection to|Failed to load resource: net::ERR_)/;
  assert.deepEqual(ada.complaints.filter((complaint) => !own.test(complaint)), []);
  const elsewhere = (request) => new URL(request).port !== String(wire.port);
  assert.deepEqual(ada.requests.filter((request) => !request.startsWith('data:')).filter(elsewhere), []);
});

test('what strangers publish is text, and bounded', LIMIT, async () => {
  const ada = await person('hostile', HOSTILE);
  const ben = await person('hostile', 'Ben');
  await ada.say(HOSTILE);
  await ben.shows('.theirs .text', HOSTILE);
  await ben.shows('#people li', HOSTILE.slice(0, 32));
  const stranger = await connect(server.url('/connection/websocket'));
  const commands = [{ connect: {} }];
  const say = (part, data) => commands.push({ publish: { channel: `demo:hostile${part}`, data } });
  for (const data of [HOSTILE, 7, null, [], { text: 7, name: {} }, { text: {} }, { text: '' }]) say('', data);
  say('.names', { name: { toString: 1 } });
  say('.typing', { typing: 'yes' });
  say('', { id: {}, name: `x\u202E\n${'y'.repeat(5000)}`, text: `\u202E${'z'.repeat(9000)}`, at: 'never' });
  say('.names', { name: `${HOSTILE}${HOSTILE}` });
  say('', { name: '__proto__', text: 'the last', at: 1e300 });
  stranger.send(commands.map((command, at) => JSON.stringify({ id: at + 1, ...command })).join('\n'));
  await ben.shows('.theirs .text', 'the last');
  assert.deepEqual((await ben.said()).map((text) => text.length), [HOSTILE.length, 2000, 8]);
  assert.ok(!/[\u202E]/.test(await ben.texts('body')));
  const names = (await ben.texts('.who')).split('\n');
  assert.ok(names.every((name) => name.length <= 32), names.join());
  assert.equal(await ben.value(`document.querySelectorAll('img, #app script').length`), 0);
  assert.equal(await ben.value('document.documentElement.scrollWidth > innerWidth'), false);
  stranger.terminate();
  isClean(ada);
  isClean(ben);
});

test('what goes wrong is said', LIMIT, async (context) => {
  const alarm = async (options, pattern, act = () => {}) => {
    const other = await start(options);
    let isRunning = true;
    context.after(() => isRunning && other.stop());
    const page = await person('', '', DESK, other.port);
    await page.value(`byId('name').value = 'Ada'; byId('ask').querySelector('button').click()`);
    await act(page, async () => { await other.stop(); isRunning = false; });
    await page.until(`${pattern}.test(document.body.innerText)`);
    return page;
  };
  const off = '[{"name":"demo","off":true}]';
  await alarm({ NAMESPACES: off }, /namespace “demo” is switched off \(102\)/);
  const readOnly = '[{"name":"demo","allow_publish_for_anonymous":false}]';
  await alarm({ NAMESPACES: readOnly }, /Not sent: permission denied \(103\)\s*Try again/, (page) => page.say('hello'));
  await alarm({}, /The server does not answer/, (page, stop) => stop());
  for (const DIALECTS of ['pages,echo', 'native,echo']) {
    const other = await start({ DIALECTS });
    context.after(() => other.stop());
    const answer = await fetch(`http://127.0.0.1:${other.port}/demo`);
    assert.equal(answer.status, 404);
    if (!DIALECTS.startsWith('pages')) continue;
    const page = await fetch(`http://127.0.0.1:${other.port}/`);
    assert.doesNotMatch(await page.text(), /id="demo"/);
  }
});

test('the pages lead to each other', LIMIT, async () => {
  const page = await open(browser, `http://127.0.0.1:${server.port}/`, DESK);
  const to = (id) => page.value(`byId('${id}').href`);
  assert.equal(await to('demo'), `http://127.0.0.1:${server.port}/demo`);
  await page.go('Page.navigate', { url: await to('demo') });
  assert.equal(await to('echo'), `http://127.0.0.1:${server.port}/`);
  const { headers } = await fetch(`http://127.0.0.1:${server.port}/demo`);
  assert.match(headers.get('content-security-policy'), /^default-src 'none'/);
});

test('it fits every screen', LIMIT, async () => {
  for (const view of [{ width: 320, height: 568 }, { width: 390, scheme: 'dark' }, DESK]) {
    const page = await person('fits', 'A name of thirty-two characters!', view);
    await page.say('wide'.repeat(400));
    await page.until(`!document.querySelector('.waiting') && document.querySelector('.mine')`);
    assert.equal(await page.value('document.documentElement.scrollWidth > innerWidth'), false);
    assert.equal(await page.value(`byId('send').getBoundingClientRect().bottom <= innerHeight`), true);
    isClean(page);
  }
});

/** A wire to a port that can be cut, and refuses everybody until it is mended. */
async function cuttable(port) {
  const sockets = new Set();
  let isCut = false;
  const listener = net.createServer((near) => {
    if (isCut) return near.resetAndDestroy();
    const far = net.connect(port, '127.0.0.1');
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => { sockets.delete(from); to.destroy(); });
      from.pipe(to);
    }
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const cut = () => {
    isCut = true;
    for (const socket of sockets) socket.destroy();
  };
  const mend = () => { isCut = false; };
  return { port: listener.address().port, cut, mend, close: () => { cut(); listener.close(); } };
}
