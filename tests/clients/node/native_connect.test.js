// Coming, staying and going by the native protocol, as the unmodified `centrifuge` SDK sees it:
// tokens and their ends, heartbeat, closing codes, a server that goes and comes back.
'use strict';

const assert = require('node:assert/strict');
const { SECRET, inSeconds, never, present, scenario, settles, together, token } =
  require('./native.js');

const KEYED = { TOKEN_SECRET: SECRET, TOKEN_LEEWAY: '0s' };
const OTHERS = 'not the secret, but as long as the secret is';
const isFinal = ({ code }) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

/** What the SDK was told when it gave up, having tried once. */
async function givesUp(peer) {
  peer.sdk.connect();
  const told = await peer.events.next('disconnected');
  assert.equal(peer.sockets.length, 1, 'it tried again');
  assert.ok(told.reason.length > 0);
  return told;
}

scenario('an anonymous peer is let in and gets an id', {}, async (house) => {
  const [one, other] = await Promise.all([house.peer().connect(), house.peer().connect()]);
  for (const { client } of [one, other]) {
    assert.match(client, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  }
  assert.notEqual(one.client, other.client);
});

scenario('a token says who comes', KEYED, async (house) => {
  const peer = await house.user('42', { info: { name: 'Ann' } });
  const channel = await peer.subscribe('chat:lobby');
  const { client } = peer.events.all('connected')[0];
  const members = [{ client, user: '42', connInfo: { name: 'Ann' }, chanInfo: undefined }];
  assert.deepEqual(await present(channel), members);
});

scenario('the vector of another server is understood', { TOKEN_SECRET: 'cent-secret' },
  async (house) => {
    const vector = 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.'
      + 'eyJzdWIiOiI0MiIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwfQ.'
      + 'bdncrEqcZEponkYINSJmuzgzghiXUu5YEWx8YoGqGNA';
    const peer = await house.dial({ token: vector });
    const channel = await peer.subscribe('chat:lobby');
    assert.equal((await present(channel))[0].user, '42');
  });

for (const [kind, make] of Object.entries({
  'a token of somebody else': () => token({ sub: '42' }, OTHERS),
  'a token without a signature': () => token({ sub: '42' }, SECRET, { alg: 'none' }),
  'what is no token at all': () => 'nonsense',
  'a token that is not good yet': () => token({ sub: '42', nbf: inSeconds(60) }),
})) {
  scenario(`${kind} ends it for good`, KEYED, async (house) => {
    const told = await givesUp(house.peer({ token: make() }));
    assert.equal(told.code, 3500);
  });
}

scenario('who must bring a token and does not is told so', KEYED, async (house) => {
  const told = await givesUp(house.peer());
  assert.ok(isFinal(told) || told.code === 101, JSON.stringify(told));
});

scenario('without a token one is let in where none is demanded',
  { ...KEYED, TOKEN_REQUIRED: 'false' }, async (house) => {
    await house.dial();
    const told = await givesUp(house.peer({ token: 'nonsense' }));
    assert.equal(told.code, 3500);
  });

scenario('an expired token is 109, after which the SDK asks for another', KEYED, async (house) => {
  const expired = token({ sub: '42', exp: inSeconds(-60) });
  const peer = house.peer({ token: expired, getToken: async () => token({ sub: '42' }) });
  await peer.connect();
  const [{ error }] = peer.events.all('error');
  assert.equal(error.code, 109);
  const lost = house.peer({ token: expired });
  lost.sdk.connect();
  const told = await lost.events.next('disconnected');
  assert.equal(told.code, 1, 'the SDK has no other token');
  assert.equal(lost.events.list.find(({ name }) => name === 'error').error.code, 109);
});

scenario('a connection outlives its token by fresh ones', KEYED, async (house) => {
  let asked = 0;
  const getToken = async () => {
    asked += 1;
    return token({ sub: '42', exp: inSeconds(2) });
  };
  // Longer than the server waits for a fresh one.
  const peer = await house.dial({ getToken, token: token({ sub: '42', exp: inSeconds(2) }) });
  const channel = await peer.subscribe('chat:lobby');
  await settles(() => asked >= 5, 'asked for five tokens');
  await channel.publish('still here');
  assert.equal(peer.events.all('connecting').length, 1, 'it was cut off');
  assert.deepEqual(await channel.events.count(1), ['still here']);
});

scenario('a connection ends with its token', KEYED, async (house) => {
  const first = token({ sub: '42', exp: inSeconds(2) });
  const peer = await house.dial({ token: first, getToken: never });
  const told = await peer.events.next('connecting', ({ code }) => code !== 0);
  assert.equal(told.code, 3005);
  assert.ok(told.reason.length > 0);
});

scenario('a fresh token must be of the same user, and genuine', KEYED, async (house) => {
  for (const next of [token({ sub: '7' }), 'nonsense']) {
    const first = token({ sub: '42', exp: inSeconds(2) });
    const peer = await house.dial({ token: first, getToken: async () => next });
    const told = await peer.events.next('disconnected');
    assert.ok(told.reason.length > 0);
    assert.ok(isFinal(told) || told.code >= 100, JSON.stringify(told));
  }
});

scenario('a token that is called back ends its connection and opens no other', KEYED,
  async (house) => {
    const peer = await house.user('42', { jti: 'lost phone' });
    const other = await house.user('42', { jti: 'desk' });
    const answer = await house.ask('revoke', { jti: 'lost phone' });
    assert.equal(answer.status, 200);
    const told = await peer.events.next('disconnected');
    assert.equal(told.code, 3500);
    await other.subscribe('chat:lobby');
    assert.equal(other.events.all('connecting').length, 1);
  });

scenario('pings are answered, and who is pinged stays', { PING_INTERVAL: '1s' }, async (house) => {
  // The SDK gives up two seconds after a ping that does not come.
  const peer = await house.dial({ maxServerPingDelay: 2000 });
  const pings = () => peer.received.filter((frame) => frame === '{}').length;
  await settles(() => pings() >= 3, 'three pings');
  assert.ok(peer.sent.filter((frame) => frame === '{}').length >= 3);
  await assert.rejects(peer.sdk.rpc('nothing', {}), { code: 104 });
  assert.equal(peer.events.all('connecting').length, 1);
});

scenario('who loses its network comes back with the next ping missing',
  { PING_INTERVAL: '1s', PONG_TIMEOUT: '1s' }, async (house) => {
    const proxy = await house.proxy();
    const peer = await house.dial({ maxServerPingDelay: 2000 }, proxy.url);
    const channel = await peer.subscribe('chat:lobby');
    proxy.freeze();
    const told = await peer.events.next('connecting', ({ code }) => code !== 0);
    assert.equal(told.code, 2, 'the SDK misses a ping');
    await peer.events.next('connected');
    await channel.events.next('subscribed');
    await channel.publish('back');
    await channel.events.count(1);
    // The first connection is gone at the server too, which no FIN told.
    const of = async () => (await channel.presenceStats()).numClients;
    await settles(async () => await of() === 1, 'gone for the server');
  });

scenario('a procedure that nobody offers is not found', {}, async (house) => {
  const peer = await house.dial();
  await assert.rejects(peer.sdk.rpc('sum', { of: [1, 2] }), { code: 104 });
  await assert.rejects(peer.sdk.rpc('', null), { code: 104 });
  assert.equal(peer.events.all('connecting').length, 1);
});

scenario('who sends what nobody is there to hear is told so', {}, async (house) => {
  const peer = await house.dial();
  await peer.sdk.send({ any: 'thing' });
  assert.deepEqual(await peer.events.next('disconnected'),
    { name: 'disconnected', code: 3508, reason: 'not available' });
});

scenario('a message over the limit ends it for good', { MAX_MESSAGE_BYTES: '2000' },
  async (house) => {
    const peer = await house.dial();
    const channel = await peer.subscribe('plain:lobby');
    await channel.publish('x'.repeat(1900));
    assert.equal((await channel.events.count(1))[0].length, 1900);
    const lost = assert.rejects(channel.publish('x'.repeat(2000)));
    const told = await peer.events.next('disconnected');
    assert.equal(told.code, 3, 'message size limit');
    await lost;
  });

scenario('a shutdown is 3001, and whoever was there comes back to the next server', {},
  async (house) => {
    const peers = await Promise.all(Array.from({ length: 8 }, () => house.dial()));
    const channels = await Promise.all(peers.map((peer) => peer.subscribe('plain:lobby')));
    await house.leave();
    for (const { events } of peers) {
      const told = await events.next('connecting', ({ code }) => code !== 0);
      assert.equal(told.code, 3001);
      assert.ok(told.reason.length > 0);
    }
    await house.open();
    for (const { events } of channels) await events.next('subscribed');
    await channels[0].publish('all here again');
    for (const { events } of channels) {
      assert.deepEqual(await events.count(1), ['all here again']);
    }
  });

scenario('a server\'s operator sends a user away, for good or to come back', KEYED,
  async (house) => {
    const [first, second, other] = await Promise.all(
      ['42', '42', '7'].map((sub) => house.user(sub)));
    const back = { code: 3011, reason: 'force reconnect' };
    await house.api('disconnect', { user: '42', disconnect: back });
    for (const { events } of [first, second]) {
      const told = await events.next('connecting', ({ code }) => code !== 0);
      assert.deepEqual([told.code, told.reason], [back.code, back.reason]);
      await events.next('connected', () => events.all('connected').length === 2);
    }
    await house.api('disconnect', { user: '42' });
    for (const { events } of [first, second]) {
      const told = await events.next('disconnected');
      assert.ok(isFinal(told) && told.reason.length > 0, JSON.stringify(told));
    }
    await assert.rejects(other.sdk.rpc('nothing', {}), { code: 104 });
    assert.equal(other.events.all('connecting').length, 1);
  });

scenario('direct messages reach all of a user\'s connections, broadcasts everybody', KEYED,
  async (house) => {
    const peers = await Promise.all(['42', '42', '42', '7'].map((sub) => house.user(sub)));
    await house.api('send', { user: '42', data: { for: 'user 42' } });
    await house.api('broadcast_all', { data: { for: 'all' } });
    for (const [at, { events }] of peers.entries()) {
      await events.next('message', ({ data }) => data.for === 'all');
      const told = events.all('message').map(({ data }) => data.for);
      assert.deepEqual(told.sort(), at < 3 ? ['all', 'user 42'] : ['all']);
    }
    const { client } = peers[1].events.all('connected')[0];
    await house.api('send', { client, data: { for: 'one' } });
    await peers[1].events.next('message', ({ data }) => data.for === 'one');
  });

together('coming, staying and going');
