// The native protocol frame by frame, through `ws` alone: what the SDK does not show.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { connect } = require('./server.js');
const { parts, scenario, settles, together } = require('./native.js');

/** A connection that sends and receives the objects of the protocol. */
async function wire(house, ...protocols) {
  const socket = await connect(house.url, {}, protocols);
  const ready = [];
  socket.say = (...commands) => socket.send(commands.map((one) => JSON.stringify(one)).join('\n'));
  /** The next object, and the frame that it came in. */
  socket.hear = async () => {
    while (!ready.length) {
      const frame = await socket.receive();
      assert.equal(typeof frame, 'string', 'frames are text');
      ready.push(...parts(frame));
    }
    return ready.shift();
  };
  return socket;
}

async function connected(house) {
  const socket = await wire(house);
  socket.say({ id: 1, connect: {} });
  assert.equal((await socket.hear()).id, 1);
  return socket;
}

scenario('connecting tells id, version and heartbeat', { PING_INTERVAL: '7s' }, async (house) => {
  const socket = await wire(house);
  socket.say({ id: 1, connect: { name: 'js', version: '1' } });
  const { id, connect: told } = await socket.hear();
  assert.equal(id, 1);
  assert.deepEqual([told.ping, told.pong, typeof told.client, typeof told.version],
    [7, true, 'string', 'string']);
  assert.equal(told.expires ?? false, false);
  socket.terminate();
});

scenario('what one frame asks is done in its order', {}, async (house) => {
  const socket = await wire(house);
  const channels = Array.from({ length: 50 }, (_, n) => `chat:${n}`);
  socket.say({ connect: { name: 'js' }, id: 1 }, ...channels.map((channel, n) => (
    { subscribe: { channel, recoverable: true, flag: 1 }, id: n + 2 })));
  const answered = [];
  while (answered.length < 51) {
    const reply = await socket.hear();
    assert.equal(reply.error, undefined);
    answered.push(reply.id);
  }
  assert.equal(answered[0], 1, 'connecting is answered first');
  assert.equal(new Set(answered).size, 51);
  socket.say({ publish: { channel: channels[3], data: 1 }, id: 52 },
    { unsubscribe: { channel: channels[3] }, id: 53 },
    { presence_stats: { channel: channels[3] }, id: 54 },
    { subscribe: { channel: channels[3] }, id: 55 },
    { presence_stats: { channel: channels[3] }, id: 56 });
  // Answers come as their channels' homes give them; what they say is in order.
  const heard = new Map();
  while (heard.size < 5) {
    const reply = await socket.hear();
    if (reply.id) heard.set(reply.id, reply);
  }
  assert.deepEqual([...heard.keys()].sort(), [52, 53, 54, 55, 56]);
  const members = (id) => heard.get(id).presence_stats.num_clients ?? 0;
  assert.deepEqual([members(54), members(56)], [0, 1]);
  socket.terminate();
});

scenario('payloads pass unread', {}, async (house) => {
  const [here, there] = await Promise.all([connected(house), connected(house)]);
  there.send('{"id":2,"subscribe":{"channel":"plain:x"}}');
  assert.equal((await there.hear()).id, 2);
  const payloads = ['0', '-1.50e+3', '12345678901234567890.00', '""', '[]', '{}', 'false',
    '{"a":{"b":[null,true,"\\u2028\\ud83d\\ude00\\n\\\\"]}}', '"ünï ☃ 😀"',
    '{"z":1,"a":2,"z":3}', `"${'x'.repeat(30_000)}"`];
  for (const [at, payload] of payloads.entries()) {
    here.send(`{"publish":{"channel":"plain:x","data":${payload}},"id":${at + 2}}`);
    const frame = await there.receive();
    const { push } = JSON.parse(frame);
    assert.equal(push.channel, 'plain:x');
    assert.ok(frame.includes(`"data":${payload}`), frame.slice(0, 300));
    assert.deepEqual(await here.hear(), { id: at + 2, publish: {} });
  }
  // Between tokens a line break may stand, which separates objects on the wire.
  here.send('{"id":90,"publish":{"channel":"plain:x","data":{"a":\t[1,  2]}}}');
  assert.deepEqual((await there.hear()).push.pub.data, { a: [1, 2] });
  for (const socket of [here, there]) socket.terminate();
});

scenario('what is refused is refused by its number', {},
  async (house) => {
    const socket = await connected(house);
    const errors = [
      [{ subscribe: { channel: 'chat:a' } }, undefined],
      [{ subscribe: { channel: 'chat:a' } }, 105],
      [{ subscribe: { channel: 'none:a' } }, 102],
      [{ subscribe: { channel: 'shut:a' } }, 103],
      [{ publish: { channel: 'read:a', data: 1 } }, 103],
      [{ publish: { channel: 'none:a', data: 1 } }, 102],
      [{ history: { channel: 'plain:a' } }, 108],
      [{ presence: { channel: 'plain:a' } }, 108],
      [{ presence_stats: { channel: 'plain:a' } }, 108],
      [{ presence: { channel: 'shut:a' } }, 103],
      [{ history: { channel: 'shut:a' } }, 103],
      [{ rpc: { method: 'x', data: {} } }, 104],
      [{ unsubscribe: { channel: 'chat:a' } }, undefined],
    ];
    for (const [at, [command, code]] of errors.entries()) {
      socket.say({ id: at + 2, ...command });
      const reply = await socket.hear();
      assert.equal(reply.id, at + 2);
      assert.equal(reply.error?.code, code, JSON.stringify([command, reply]));
      if (code) assert.ok(reply.error.message.length > 0);
    }
    socket.terminate();
  });

for (const [kind, frames] of Object.entries({
  'a command before connecting': ['{"id":1,"subscribe":{"channel":"plain:x"}}'],
  'what is not JSON': ['hello'],
  'JSON that is no object': ['[1,2]'],
  'half a command': ['{"id":1,"connect":{'],
  'a bad line behind a good one': ['{"id":1,"connect":{}}\n{"id":2,'],
  'connecting twice': ['{"id":1,"connect":{}}', '{"id":2,"connect":{}}'],
})) {
  scenario(`${kind} is 3501`, {}, async (house) => {
    const socket = await connect(house.url);
    for (const frame of frames) socket.send(frame);
    const { code, reason } = await socket.closed;
    assert.equal(code, 3501);
    assert.ok(reason.length > 0);
  });
}

scenario('a binary frame is none of this protocol', {}, async (house) => {
  const socket = await connect(house.url);
  socket.send(Buffer.from([0x82, 0xff, 0x00]));
  const { code, reason } = await socket.closed;
  assert.ok([1003, 3501].includes(code), code);
  assert.ok(reason.length > 0);
});

scenario('a subprotocol that is not spoken is declined', {}, async (house) => {
  await assert.rejects(wire(house, 'centrifuge-protobuf'), /no subprotocol/i);
});

const IMPATIENT = { PING_INTERVAL: '1s', PONG_TIMEOUT: '1s' };

scenario('who answers no ping is closed with 3012', IMPATIENT, async (house) => {
  const silent = await connected(house);
  const polite = await connected(house);
  polite.on('message', (data) => { if (data.toString() === '{}') polite.send('{}'); });
  assert.deepEqual(await silent.hear(), {});
  const { code, reason } = await silent.closed;
  assert.equal(code, 3012);
  assert.ok(reason.length > 0);
  assert.equal(polite.readyState, 1);
  polite.terminate();
});

scenario('debugging tools are pinged by WebSocket', IMPATIENT, async (house) => {
  const socket = await connect(`${house.url}?cf_ws_frame_ping_pong=true`);
  socket.send('{"id":1,"connect":{}}');
  await once(socket, 'ping');
  await once(socket, 'ping');
  socket.send('{"id":2,"rpc":{"method":"x"}}');
  const frames = [await socket.receive(), await socket.receive()];
  assert.deepEqual(frames.map((frame) => JSON.parse(frame).id), [1, 2], 'no other frame came');
  socket.terminate();
});

scenario('a peer that vanishes leaves its channels', {}, async (house) => {
  const socket = await connected(house);
  socket.say({ id: 2, subscribe: { channel: 'plain:x' } });
  await socket.hear();
  assert.ok('plain:x' in (await house.api('channels')).channels);
  socket.terminate();
  await settles(async () => !('plain:x' in (await house.api('channels')).channels), 'forgotten');
});

scenario('members come and go, and are told so', {}, async (house) => {
  const [here, there] = await Promise.all([connected(house), connected(house)]);
  here.say({ id: 2, subscribe: { channel: 'chat:x', join_leave: true } });
  const heard = [await here.hear(), await here.hear()];
  assert.equal(heard[0].id, 2, 'the answer comes first');
  const own = heard[1].push.join.info.client;
  there.say({ id: 2, subscribe: { channel: 'chat:x' } });
  const { push } = await here.hear();
  assert.equal(push.channel, 'chat:x');
  assert.notEqual(push.join.info.client, own);
  there.terminate();
  assert.equal((await here.hear()).push.leave.info.client, push.join.info.client);
  here.terminate();
});

together('frame by frame');
