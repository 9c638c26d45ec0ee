// Opening, heartbeat and closing through node's `ws`: what each side is told.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { test } = require('node:test');
const { connect, refusal, start } = require('./server.js');

const LIMIT = { timeout: 60_000 };

/** Runs `body` against a server of its own, which must then leave with status 0. */
function withServer(name, options, body) {
  test(name, LIMIT, async () => {
    const server = await start(options);
    try {
      await body(server);
    } finally {
      await server.stop();
    }
  });
}

withServer('compression that is offered is declined', {}, async (server) => {
  const socket = await connect(server.url('/echo'), { perMessageDeflate: true });
  assert.equal(socket.extensions, '');
  socket.send('plain');
  assert.equal(await socket.receive(), 'plain');
  socket.close();
  await socket.closed;
});

withServer('the first allowed subprotocol is chosen', { SUBPROTOCOLS: 'a,b' }, async (server) => {
  const socket = await connect(server.url('/echo'), {}, ['x', 'b', 'a']);
  assert.equal(socket.protocol, 'b');
  socket.close();
  await socket.closed;
});

withServer('refusals carry their status', { MAX_CONNECTIONS: '1' }, async (server) => {
  assert.equal((await refusal(server.url('/nowhere'))).status, 404);
  const old = await refusal(server.url('/echo'), { protocolVersion: 8 });
  assert.equal(old.status, 426);
  assert.equal(old.headers['sec-websocket-version'], '13');
  const socket = await connect(server.url('/echo'));
  const full = await refusal(server.url('/echo'));
  assert.equal(full.status, 503);
  assert.ok(full.headers['retry-after'] >= 1);
  assert.ok(JSON.parse(full.body).error);
  socket.close();
  await socket.closed;
});

const HEARTBEAT = { PING_INTERVAL: '300ms', PONG_TIMEOUT: '300ms' };

withServer('who answers the heartbeat stays', HEARTBEAT, async (server) => {
  const socket = await connect(server.url('/echo'));
  for (let n = 0; n < 4; n++) {
    assert.equal((await once(socket, 'ping'))[0].toString(), 'heartbeat');
  }
  socket.send('alive');
  assert.equal(await socket.receive(), 'alive');
  socket.close();
  await socket.closed;
});

withServer('who does not answer the heartbeat is dropped', HEARTBEAT, async (server) => {
  const socket = await connect(server.url('/echo'), { autoPong: false });
  await once(socket, 'ping');
  const started = Date.now();
  await socket.closed;
  assert.ok(Date.now() - started < 10_000);
});

withServer('a close is answered with its code', {}, async (server) => {
  for (const [code, reason] of [[1000, 'bye'], [1001, ''], [3000, 'ü'.repeat(61)], [4999, 'x']]) {
    const socket = await connect(server.url('/echo'));
    socket.close(code, reason);
    assert.equal((await socket.closed).code, code);
  }
});

withServer('a close without a code is answered without one', {}, async (server) => {
  const socket = await connect(server.url('/echo'));
  socket.close();
  assert.equal((await socket.closed).code, 1005);
});

withServer('one byte too many is 1009', { MAX_MESSAGE_BYTES: '1000' }, async (server) => {
  const socket = await connect(server.url('/echo'));
  socket.send('x'.repeat(1000));
  assert.equal((await socket.receive()).length, 1000);
  socket.send('x'.repeat(1001));
  assert.equal((await socket.closed).code, 1009);
});

withServer('text that is not UTF-8 is 1007', {}, async (server) => {
  const socket = await connect(server.url('/echo'));
  socket.send(Buffer.from([0xce, 0xba, 0xff]), { binary: false });
  assert.equal((await socket.closed).code, 1007);
});

withServer('an unmasked frame is 1002', {}, async (server) => {
  const socket = await connect(server.url('/echo'));
  socket.send('open', { mask: false });
  assert.equal((await socket.closed).code, 1002);
});

test('shutting down says 1001 to everyone', LIMIT, async () => {
  const server = await start();
  const sockets = await Promise.all(
    Array.from({ length: 50 }, () => connect(server.url('/echo'))));
  await server.stop();
  for (const socket of sockets) {
    assert.deepEqual(await socket.closed, { code: 1001, reason: 'server shutting down' });
  }
});
