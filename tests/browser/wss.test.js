// Browsers hold `wss://` with bursts, and nothing is lost: Chromium and Firefox, each headless, each
// with a profile that trusts the authority of this test and no exception from any check. The page
// that they open is served here, and posts here what it saw. SUITE_SERVER, SUITE_BROWSER and
// SUITE_FIREFOX name the binaries, SUITE_HOLD_S says for how long.
'use strict';

const assert = require('node:assert/strict');
const { execFileSync, spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { start } = require('../clients/node/server.js');

const HOLD_S = Number(process.env.SUITE_HOLD_S || 30);
const SOCKETS = 8;
const BURST = 200;
const LIMIT = { timeout: (HOLD_S + 90) * 1000 };
const BROWSERS = {
  chromium: process.env.SUITE_BROWSER || 'chromium',
  firefox: process.env.SUITE_FIREFOX || 'firefox-esr',
};
const CHROMIUM_FLAGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run',
  '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update'];
const FIREFOX_PREFERENCES = {
  'app.normandy.enabled': false,
  'app.update.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'toolkit.telemetry.enabled': false,
};
const file = (name) => path.join(folder, name);
const run = (program, ...args) => execFileSync(program, args, { stdio: 'pipe' });
let folder, server, site;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemill-wss-'));
  certify();
  // Pings that come many times while the page is open; the browser must answer them.
  server = await start({ TLS_LISTEN: '127.0.0.1:0', TLS_CERT: file('leaf.pem'),
    TLS_KEY: file('leaf.key'), PING_INTERVAL: '2s', PONG_TIMEOUT: '10s' });
  server.tlsPort = Number(/wss:\/\/127\.0\.0\.1:(\d+)/.exec(server.output)[1]);
  site = await serve();
}, LIMIT);
after(async () => {
  site?.server.close();
  site?.server.closeAllConnections();
  await server?.stop();
  fs.rmSync(folder, { recursive: true, force: true, maxRetries: 9 });
}, LIMIT);

/** An authority, and a certificate for this machine that it signed. */
function certify() {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  run('openssl', 'req', '-x509', ...key, '-keyout', file('root.key'), '-out', file('root.pem'),
    '-days', '2', '-subj', '/CN=Authority of a test',
    '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  run('openssl', 'req', ...key, '-keyout', file('leaf.key'), '-out', file('leaf.csr'),
    '-subj', '/CN=localhost');
  fs.writeFileSync(file('extensions'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' +
    'extendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n');
  run('openssl', 'x509', '-req', '-in', file('leaf.csr'), '-CA', file('root.pem'), '-CAkey',
    file('root.key'), '-CAcreateserial', '-days', '2', '-extfile', file('extensions'),
    '-out', file('leaf.pem'));
}

/** A database of trusted authorities, which holds ours. */
function trust(database) {
  fs.mkdirSync(database, { recursive: true });
  run('certutil', '-N', '-d', `sql:${database}`, '--empty-password');
  run('certutil', '-A', '-d', `sql:${database}`, '-n', 'test', '-t', 'C,,', '-i', file('root.pem'));
}

/** Serves the page, and keeps what is posted by each browser. */
async function serve() {
  const posted = {};
  const waiting = {};
  const done = (name, report) => {
    if (waiting[name]) waiting[name](report);
    else posted[name] = report;
  };
  const httpServer = http.createServer(async (request, response) => {
    const name = new URL(request.url, 'http://localhost').searchParams.get('browser');
    if (request.method === 'GET') {
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      return response.end(`<!doctype html><title>wss</title><script>(${page})(${
        JSON.stringify({ url: `wss://localhost:${server.tlsPort}`, seconds: HOLD_S, name,
          count: SOCKETS, burst: BURST })})</script>`);
    }
    let body = '';
    for await (const part of request) body += part;
    response.end();
    return done(name, JSON.parse(body));
  });
  httpServer.listen(0, '127.0.0.1');
  await once(httpServer, 'listening');
  const origin = `http://127.0.0.1:${httpServer.address().port}`;
  const report = (name) => new Promise((resolve) => {
    if (posted[name]) resolve(posted[name]);
    else waiting[name] = resolve;
  });
  return { server: httpServer, origin, report };
}

/** What the browser runs: sockets that are held, and bursts that must come back as they went. */
async function page({ url, seconds, name, count, burst }) {
  const report = { opened: 0, sent: 0, received: 0, wrong: 0, lost: [], codes: [], bursts: 0 };
  const post = () => fetch(`/?browser=${name}`, { method: 'POST', body: JSON.stringify(report) });
  const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
  let closing = false;
  const open = (path) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url + path);
    socket.binaryType = 'arraybuffer';
    socket.expected = [];
    socket.onopen = () => { report.opened += 1; resolve(socket); };
    socket.onerror = () => reject(new Error(`cannot open ${url}${path}`));
    socket.ended = new Promise((ended) => {
      socket.onclose = (event) => {
        if (!closing) report.lost.push(`${event.code} ${event.reason}`);
        else report.codes.push(event.code);
        ended();
      };
    });
    socket.onmessage = ({ data }) => {
      const wanted = socket.expected.shift();
      const bytes = typeof data === 'string' ? data : new Uint8Array(data);
      const same = typeof wanted === 'string' ? bytes === wanted
        : wanted?.length === bytes.length && wanted.every((byte, at) => byte === bytes[at]);
      report.received += 1;
      if (!same) report.wrong += 1;
    };
  });
  const send = (socket, message) => {
    socket.expected.push(message);
    socket.send(message);
    report.sent += 1;
  };
  try {
    const sockets = await Promise.all(Array.from({ length: count }, () => open('/echo')));
    const until = performance.now() + seconds * 1000;
    while (performance.now() < until && !report.lost.length) {
      for (const [at, socket] of sockets.entries()) {
        for (let number = 0; number < burst; number += 1) {
          const size = (number * 37 + at * 101 + report.bursts * 7) % 2000;
          if (number % 2) send(socket, `${report.bursts}:${number}:${'é'.repeat(size)}`);
          else send(socket, new Uint8Array(size).fill(number));
        }
        send(socket, new Uint8Array(60_000).fill(at));
      }
      report.bursts += 1;
      const limit = performance.now() + 20_000;
      while (sockets.some(({ expected }) => expected.length) && performance.now() < limit) {
        await pause(5);
      }
      // Sometimes for longer than it takes to be pinged.
      await pause(report.bursts % 10 ? 300 : 5000);
    }
    closing = true;
    for (const socket of sockets) socket.close(1000);
    await Promise.race([Promise.all(sockets.map(({ ended }) => ended)), pause(10_000)]);
  } catch (error) {
    report.lost.push(String(error));
  }
  await post();
}

/** Opens the page; gives what it reports, and ends the browser. */
async function visit(name) {
  const home = file(name);
  fs.mkdirSync(home);
  const url = `${site.origin}/?browser=${name}`;
  const args = name === 'firefox' ? firefox(home, url) : chromium(home, url);
  const child = spawn(BROWSERS[name], args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true,
    env: { ...process.env, HOME: home, MOZ_HEADLESS: '1' } });
  let said = '';
  for (const pipe of [child.stdout, child.stderr]) pipe.on('data', (part) => { said += part; });
  const ended = new Promise((resolve) => { child.on('close', resolve); });
  const failed = new Promise((_, reject) => {
    const late = setTimeout(() => reject(new Error(`no report: ${said}`)), LIMIT.timeout - 5000);
    late.unref();
    child.on('error', reject);
    ended.then((code) => reject(new Error(`the browser left with ${code}: ${said}`)));
  });
  try {
    return await Promise.race([site.report(name), failed]);
  } finally {
    failed.catch(() => {});
    // The browser leads a group of its own, which ends as a whole.
    if (child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
    await ended;
  }
}

function chromium(home, url) {
  trust(path.join(home, '.pki/nssdb'));
  return [...CHROMIUM_FLAGS, `--user-data-dir=${path.join(home, 'profile')}`, url];
}

function firefox(home, url) {
  trust(path.join(home, 'profile'));
  const lines = Object.entries(FIREFOX_PREFERENCES)
    .map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`);
  fs.writeFileSync(path.join(home, 'profile/user.js'), lines.join(''));
  return ['--headless', '--no-remote', '--profile', path.join(home, 'profile'), url];
}

function installed(program) {
  try {
    run('which', program);
    return true;
  } catch {
    return false;
  }
}

describe('wss', { concurrency: true }, () => {
  for (const name of Object.keys(BROWSERS)) {
    const skip = !installed(BROWSERS[name]) && `no ${BROWSERS[name]} here`;
    test(`${name} holds it for ${HOLD_S} s with bursts and loses nothing`, { ...LIMIT, skip },
      async (context) => {
        const report = await visit(name);
        context.diagnostic(JSON.stringify(report));
        assert.deepEqual(report.lost, []);
        assert.equal(report.opened, SOCKETS);
        assert.equal(report.wrong, 0);
        assert.equal(report.received, report.sent);
        assert.ok(report.bursts >= HOLD_S / 5, `only ${report.bursts} bursts`);
        assert.equal(report.sent, report.bursts * SOCKETS * (BURST + 1));
        assert.deepEqual(report.codes, new Array(SOCKETS).fill(1000));
      });
  }
});
