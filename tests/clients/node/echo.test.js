// Messages through node's `ws`: types, fragments, sizes, streams and crowds.
'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const { once } = require('node:events');
const { after, before, test } = require('node:test');
const { pipeline } = require('node:stream/promises');
const { Readable, Writable } = require('node:stream');
const { createWebSocketStream } = require('ws');
const { connect, start } = require('./server.js');

const LIMIT = { timeout: 60_000 };
let server;
before(async () => { server = await start({ MAX_MESSAGE_BYTES: '8MiB' }); });
after(() => server.stop());

for (const path of ['/', '/ws', '/chat']) {
  test(`${path} greets, then echoes`, LIMIT, async () => {
    const socket = await connect(server.url(path));
    const welcome = await socket.receive();
    assert.equal(welcome, '{"event":"connected","message":"Welcome!"}');
    socket.send('hello there');
    assert.equal(await socket.receive(), 'hello there');
    socket.close();
    await socket.closed;
  });
}

test('text comes back as text and binary as binary', LIMIT, async () => {
  const socket = await connect(server.url('/echo'));
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20, 8 << 20]) {
    const binary = randomBytes(size);
    socket.send(binary);
    assert.ok(binary.equals(await socket.receive()), `binary of ${size}`);
    const text = 'é'.repeat(size / 2);
    socket.send(text);
    assert.equal(await socket.receive(), text);
  }
  socket.close();
  await socket.closed;
});

test('fragments with a ping between them come back as one message', LIMIT, async () => {
  const socket = await connect(server.url('/echo'));
  const pong = once(socket, 'pong');
  socket.send('one ', { fin: false });
  socket.send('two ', { fin: false });
  socket.ping('between');
  assert.equal((await pong)[0].toString(), 'between');
  socket.send('three', { fin: true });
  assert.equal(await socket.receive(), 'one two three');
  socket.close();
  await socket.closed;
});

test('an unsolicited pong is ignored', LIMIT, async () => {
  const socket = await connect(server.url('/echo'));
  socket.pong('nobody asked');
  socket.send('still open');
  assert.equal(await socket.receive(), 'still open');
  socket.close();
  await socket.closed;
});

test('a stream of 32 MiB passes through with the backpressure of both sides', LIMIT, async () => {
  const socket = await connect(server.url('/echo'));
  const duplex = createWebSocketStream(socket);
  const chunk = randomBytes(64 << 10);
  const count = 512;
  let received = 0;
  const sink = new Writable({
    write(data, _, done) {
      for (let at = 0; at < data.length; ) {
        const from = (received + at) % chunk.length;
        const length = Math.min(chunk.length - from, data.length - at);
        const same = data.subarray(at, at + length).equals(chunk.subarray(from, from + length));
        if (!same) return done(new Error(`bytes differ after ${received + at}`));
        at += length;
      }
      received += data.length;
      if (received === count * chunk.length) duplex.end();
      setImmediate(done);
    },
  });
  const source = Readable.from((function* () {
    for (let n = 0; n < count; n++) yield chunk;
  })());
  source.pipe(duplex, { end: false });
  await pipeline(duplex, sink);
  assert.equal(received, count * chunk.length);
  await socket.closed;
});

test('five hundred connections talk at once', LIMIT, async () => {
  await Promise.all(Array.from({ length: 500 }, async (_, number) => {
    const socket = await connect(server.url('/echo'), { handshakeTimeout: 60_000 });
    for (let turn = 0; turn < 20; turn++) {
      const message = `${number}/${turn}`;
      socket.send(message);
      assert.equal(await socket.receive(), message);
    }
    socket.close(1000);
    assert.equal((await socket.closed).code, 1000);
  }));
});
