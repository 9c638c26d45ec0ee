// The same over TLS, through node's `tls`, `https` and `ws`: messages, ends, tickets, names.
'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const { randomBytes } = require('node:crypto');
const { once } = require('node:events');
const fs = require('node:fs');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const tls = require('node:tls');
const { connect, refusal, start } = require('./server.js');

const LIMIT = { timeout: 60_000 };
let folder, ca, server, port;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemill-tls-'));
  const file = (name) => path.join(folder, name);
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
    '-nodes', '-keyout', file('key.pem'), '-out', file('cert.pem'), '-days', '2', '-subj',
    '/CN=tests', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'], { stdio: 'pipe' });
  ca = fs.readFileSync(file('cert.pem'));
  server = await start({ TLS_LISTEN: '127.0.0.1:0', TLS_CERT: file('cert.pem'),
    TLS_KEY: file('key.pem'), MAX_MESSAGE_BYTES: '8MiB', MAX_CONNECTIONS: '300' });
  port = Number(/wss:\/\/127\.0\.0\.1:(\d+)/.exec(server.output)[1]);
});
after(async () => {
  await server.stop();
  fs.rmSync(folder, { recursive: true });
});

const url = (path_) => `wss://127.0.0.1:${port}${path_}`;
const dial = (path_ = '/echo', more = {}) => connect(url(path_), { ca, ...more });

/** An open TLS connection. */
async function secured(more = {}) {
  const socket = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca, ...more });
  await once(socket, 'secureConnect');
  return socket;
}

test('the certificate is verified, and a stranger is not trusted', LIMIT, async () => {
  const socket = await secured();
  assert.equal(socket.authorized, true);
  socket.destroy();
  await assert.rejects(secured({ ca: [] }), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
});

for (const version of ['TLSv1.2', 'TLSv1.3']) {
  test(`messages of all sizes come back by ${version}`, LIMIT, async () => {
    const socket = await dial('/echo', { minVersion: version, maxVersion: version });
    assert.equal(socket._socket.getProtocol(), version);
    for (const size of [0, 1, 125, 126, 16_383, 16_384, 65_535, 65_536, 1 << 20, 8 << 20]) {
      const binary = randomBytes(size);
      socket.send(binary);
      assert.ok(binary.equals(await socket.receive()), `binary of ${size}`);
    }
    socket.close(4001, 'enough');
    assert.equal((await socket.closed).code, 4001);
  });

  test(`the server ends ${version} with a close_notify`, LIMIT, async () => {
    const socket = await secured({ minVersion: version, maxVersion: version });
    socket.write('GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
    let text = '';
    socket.setEncoding('utf8').on('data', (part) => { text += part; });
    // Without it node reports an error, or an 'end' that never comes.
    await once(socket, 'end');
    assert.match(text, /\{"status":"healthy"\}$/);
  });

  test(`a session is resumed by ${version}`, LIMIT, async () => {
    const options = { minVersion: version, maxVersion: version };
    let session;
    for (let round = 0; round < 5; round += 1) {
      const socket = await secured({ ...options, session });
      assert.equal(socket.isSessionReused(), round > 0);
      const ticket = version === 'TLSv1.3' && once(socket, 'session');
      socket.write('GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n');
      await once(socket, 'data');
      session = ticket ? (await ticket)[0] : socket.getSession();
      socket.end();
      socket.resume();
      await once(socket, 'close');
    }
  });
}

test('only http/1.1 is spoken inside', LIMIT, async () => {
  const socket = await secured({ ALPNProtocols: ['h2', 'http/1.1'] });
  assert.equal(socket.alpnProtocol, 'http/1.1');
  socket.destroy();
  await assert.rejects(secured({ ALPNProtocols: ['h2'] }), /no application protocol/i);
});

test('https keeps its connection for many requests', LIMIT, async () => {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca });
  const sockets = new Set();
  for (let number = 0; number < 20; number += 1) {
    const request = https.get({ host: '127.0.0.1', port, path: '/health', agent });
    const [answer] = await once(request, 'response');
    sockets.add(answer.socket.localPort);
    let body = '';
    for await (const part of answer) body += part;
    assert.equal(body, '{"status":"healthy"}');
  }
  assert.equal(sockets.size, 1);
  agent.destroy();
});

test('a refusal arrives whole', LIMIT, async () => {
  const told = await refusal(url('/nowhere'), { ca });
  assert.equal(told.status, 404);
  assert.equal(told.body.length, Number(told.headers['content-length']));
});

test('a crowd echoes in bursts, and nobody is lost', LIMIT, async () => {
  const crowd = await Promise.all(Array.from({ length: 200 }, () => dial()));
  let lost = 0;
  for (const socket of crowd) socket.closed.then(() => { lost += 1; });
  for (let burst = 0; burst < 5; burst += 1) {
    const message = randomBytes(300 * (burst + 1));
    await Promise.all(crowd.map(async (socket) => {
      for (let number = 0; number < 20; number += 1) socket.send(message);
      for (let number = 0; number < 20; number += 1) {
        assert.ok(message.equals(await socket.receive()));
      }
    }));
  }
  assert.equal(lost, 0);
  for (const socket of crowd) socket.close();
  const codes = await Promise.all(crowd.map((socket) => socket.closed));
  assert.ok(codes.every(({ code }) => code === 1005));
});
