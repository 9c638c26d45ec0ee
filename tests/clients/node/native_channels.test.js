// Channels by the native protocol, as the unmodified `centrifuge` SDK sees them: what reaches whom,
// who may do what, presence, history, patterns, subscriptions that the server makes.
'use strict';

const assert = require('node:assert/strict');
const { NAMESPACES, SECRET, inSeconds, never, parts, present, scenario, settles, together, token } =
  require('./native.js');

const KEYED = { TOKEN_SECRET: SECRET, TOKEN_LEEWAY: '0s' };
const OTHERS = 'not the secret, but as long as the secret is';
const pass = (sub, channel, claims = {}) => token({ sub, channel, ...claims });
const id = (peer) => peer.events.all('connected').at(-1).client;
const numbered = (count) => Array.from({ length: count }, (_, at) => at + 1);

scenario('what is published reaches everybody on the channel, in order', {}, async (house) => {
  const peers = await Promise.all(Array.from({ length: 12 }, () => house.dial()));
  const channels = await Promise.all(peers.map((peer) => peer.subscribe('chat:lobby')));
  const stranger = await (await house.dial()).subscribe('chat:elsewhere');
  await Promise.all(numbered(100).map((n) => channels[0].publish({ n })));
  const info = { client: id(peers[0]), user: '' };
  for (const { events } of channels) {
    assert.deepEqual(await events.count(100), numbered(100).map((n) => ({ n })));
    assert.deepEqual(events.all('publication').map(({ offset }) => offset), numbered(100));
    assert.deepEqual(events.all('publication')[0].info, info);
  }
  await house.api('publish', { channel: 'chat:lobby', data: 'from a server', tags: { a: 'b' } });
  const told = await channels[3].events.next('publication', ({ data }) => data === 'from a server');
  assert.deepEqual([told.info, told.tags, told.offset], [undefined, { a: 'b' }, 101]);
  assert.deepEqual(stranger.events.data, []);
});

scenario('publishing needs no subscription, and many channels do not mix', {}, async (house) => {
  const [publisher, reader] = await Promise.all([house.dial(), house.dial()]);
  const names = numbered(40).map((n) => `plain:${n}`);
  const channels = await Promise.all(names.map((name) => reader.subscribe(name)));
  for (const n of numbered(20)) {
    await Promise.all(names.map((name) => publisher.sdk.publish(name, { name, n })));
  }
  for (const [at, { events }] of channels.entries()) {
    const data = await events.count(20);
    assert.deepEqual(data, numbered(20).map((n) => ({ name: names[at], n })));
    assert.ok(events.all('publication').every(({ offset }) => !offset), 'no stream, no offset');
  }
});

scenario('who unsubscribes hears no more', {}, async (house) => {
  const [peer, other] = await Promise.all([house.dial(), house.dial()]);
  const channel = await peer.subscribe('chat:lobby');
  const stays = await other.subscribe('chat:lobby');
  await stays.publish('before');
  await channel.events.count(1);
  channel.unsubscribe();
  assert.equal((await channel.events.next('unsubscribed')).code, 0);
  await settles(async () => (await stays.presenceStats()).numClients === 1, 'unsubscribed');
  await stays.publish('after');
  await stays.events.count(2);
  channel.subscribe();
  await channel.events.next('subscribed', () => channel.events.all('subscribed').length === 2);
  await stays.publish('again');
  assert.deepEqual(await channel.events.count(2), ['before', 'again']);
  assert.ok(!peer.received.some((frame) => frame.includes('"after"')), 'it came all the same');
});

scenario('who changes its mind again and again ends where it wants', {}, async (house) => {
  const [peer, other] = await Promise.all([house.dial(), house.dial()]);
  const watch = await other.subscribe('chat:lobby', { joinLeave: true });
  const channel = peer.channel('chat:lobby', { recoverable: true });
  for (const _ of numbered(20)) {
    channel.subscribe();
    channel.unsubscribe();
  }
  channel.subscribe();
  await channel.events.next('subscribed');
  await watch.publish('now');
  assert.deepEqual(await channel.events.count(1), ['now']);
  channel.unsubscribe();
  await settles(async () => (await watch.presenceStats()).numClients === 1, 'gone');
  const told = watch.events.list.filter(({ info }) => info?.client === id(peer))
    .map(({ name }) => name);
  assert.deepEqual(told, told.map((_, at) => ['join', 'leave'][at % 2]));
});

scenario('what this server has not does no harm to ask for', {}, async (house) => {
  const peer = await house.dial({ data: { any: 'thing' }, headers: { a: 'b' }, version: '7' });
  const channel = await peer.subscribe('chat:lobby', { delta: 'fossil', data: { any: 'thing' } });
  for (const n of numbered(3)) await channel.publish({ n });
  assert.deepEqual(await channel.events.count(3), numbered(3).map((n) => ({ n })));
  const told = await peer.refused('chat:x', { tagsFilter: { key: 'a', cmp: 'eq', val: 'b' } });
  assert.ok(told.code >= 100, 'what it would not filter it does not promise');
});

scenario('connecting and fifty subscriptions fit in one frame', {}, async (house) => {
  const peer = house.peer();
  const channels = numbered(50).map((n) => peer.channel(`chat:${n}`, { recoverable: true }));
  for (const channel of channels) channel.subscribe();
  await peer.connect();
  for (const { events } of channels) {
    const context = await events.next('subscribed');
    assert.ok(context.recoverable && context.streamPosition.epoch.length > 0);
  }
  assert.equal(parts(peer.sent[0]).length, 51, 'the SDK sent them together');
  await house.api('broadcast', { channels: channels.map(({ channel }) => channel), data: 1 });
  for (const { events } of channels) await events.count(1);
});

scenario('what is not granted is refused', KEYED, async (house) => {
  const [user, nobody] = [await house.user('42'), await house.dial({ token: token({}) })];
  const denied = { code: 103 };
  for (const peer of [user, nobody]) {
    const reader = await peer.subscribe('read:all');
    await assert.rejects(reader.publish('no'), denied);
    await assert.rejects(peer.sdk.publish('shut:x', 'no'), denied);
    await assert.rejects(peer.sdk.publish('none:x', 'no'), { code: 102 });
    await assert.rejects(peer.sdk.presence('plain:x'), { code: 108 });
    await assert.rejects(peer.sdk.history('plain:x'), { code: 108 });
    await assert.rejects(peer.sdk.history('shut:x'), denied);
    assert.equal((await peer.refused('shut:x')).code, 103);
    assert.equal((await peer.refused('none:x')).code, 102);
    assert.equal((await peer.refused('private-x')).code, 103);
    assert.equal((await peer.refused('presence-x')).code, 103);
    assert.equal((await peer.refused('#server-to-user-42')).code, 103);
  }
  // Names without a prefix: with a token key only who has a user id publishes.
  await user.sdk.publish('lobby', 'yes');
  await assert.rejects(nobody.sdk.publish('lobby', 'no'), denied);
});

scenario('presence tells who is there, by connections and by users', KEYED, async (house) => {
  const [ann, tablet, bob] = await Promise.all(
    [['42', { info: { name: 'Ann' } }], ['42', {}], ['7', {}]].map((who) => house.user(...who)));
  const room = 'chat:lobby';
  const channel = await ann.subscribe(room);
  await tablet.subscribe(room);
  await bob.subscribe(room, { token: pass('7', room, { info: { seat: 3 } }) });
  assert.deepEqual(await channel.presenceStats(), { numClients: 3, numUsers: 2 });
  const members = [[ann, '42', { name: 'Ann' }], [tablet, '42'],
    [bob, '7', undefined, { seat: 3 }]];
  const expected = members.map(([peer, user, connInfo, chanInfo]) => (
    { client: id(peer), user, connInfo, chanInfo }));
  const byClient = (one, other) => (one.client < other.client ? -1 : 1);
  assert.deepEqual((await present(channel)).sort(byClient), expected.sort(byClient));
  assert.deepEqual(await bob.sdk.presenceStats('chat:empty'), { numClients: 0, numUsers: 0 });
  tablet.sdk.disconnect();
  await settles(async () => (await channel.presenceStats()).numClients === 2, 'gone');
});

scenario('who asks for it hears others come and go', KEYED, async (house) => {
  const [ann, deaf] = [await house.user('42'), await house.user('8')];
  const channel = await ann.subscribe('chat:lobby', { joinLeave: true });
  const plain = await deaf.subscribe('chat:lobby');
  const bob = await house.user('7', { info: { name: 'Bob' } });
  const his = await bob.subscribe('chat:lobby');
  const joined = await channel.events.next('join', ({ info }) => info.user === '7');
  assert.deepEqual(joined.info, { client: id(bob), user: '7', connInfo: { name: 'Bob' } });
  his.unsubscribe();
  assert.equal((await channel.events.next('leave')).info.client, id(bob));
  his.subscribe();
  await channel.events.next('join', ({ info }) => info.user === '7');
  bob.sockets[0].terminate();
  await channel.events.next('leave', ({ info }) => info.user === '7');
  assert.deepEqual(plain.events.all('join').concat(plain.events.all('leave')), []);
  const told = await deaf.subscribe('told:lobby');
  const late = await (await house.user('9')).subscribe('told:lobby');
  await told.events.next('join', ({ info }) => info.user === '9');
  late.unsubscribe();
  await told.events.next('leave', ({ info }) => info.user === '9');
});

scenario('history is told from any position, in both directions', {}, async (house) => {
  const peer = await house.dial();
  const channel = await peer.subscribe('chat:lobby');
  for (const n of numbered(30)) await channel.publish({ n });
  const told = async (options) => {
    const { publications, offset, epoch } = await channel.history(options);
    assert.equal(offset, 30);
    return { epoch, offsets: publications.map((one) => one.offset), publications };
  };
  const { epoch, offsets } = await told({ limit: 0 });
  assert.deepEqual(offsets, []);
  assert.ok(epoch.length > 0);
  const all = await told({ limit: -1 });
  assert.deepEqual(all.publications.map(({ data }) => data), numbered(30).map((n) => ({ n })));
  assert.equal(all.publications[4].info.client, id(peer));
  const since = { offset: 12, epoch };
  assert.deepEqual((await told({ limit: 3 })).offsets, [1, 2, 3]);
  assert.deepEqual((await told({ limit: 3, since })).offsets, [13, 14, 15]);
  assert.deepEqual((await told({ limit: 100, since })).offsets, numbered(30).slice(12));
  assert.deepEqual((await told({ limit: 3, reverse: true })).offsets, [30, 29, 28]);
  assert.deepEqual((await told({ limit: 3, since, reverse: true })).offsets, [11, 10, 9]);
  assert.deepEqual((await told({ limit: 3, since: { offset: 30, epoch } })).offsets, []);
  await assert.rejects(channel.history({ limit: 3, since: { offset: 12, epoch: 'other' } }),
    { code: 112 });
});

scenario('history keeps its size', {}, async (house) => {
  const peer = await house.dial();
  for (const n of numbered(25)) await peer.sdk.publish('feed:x', n);
  const { publications, offset, epoch } = await peer.sdk.history('feed:x', { limit: 100 });
  assert.deepEqual(publications.map(({ data }) => data), numbered(25).slice(15));
  assert.equal(offset, 25);
  const since = { offset: 3, epoch };
  await assert.rejects(peer.sdk.history('feed:x', { limit: 100, since }), { code: 112 });
});

scenario('a private channel needs a token of its own', KEYED, async (house) => {
  const peer = await house.user('42');
  for (const wrong of [undefined, pass('42', '$others'), pass('7', '$mine'), token({ sub: '42' }),
    token({ sub: '42', channel: '$mine' }, OTHERS), 'nonsense']) {
    const told = await peer.refused('$mine', wrong && { token: wrong });
    assert.equal(told.code, 103, `${wrong}: ${JSON.stringify(told)}`);
    peer.sdk.removeSubscription(peer.sdk.getSubscription('$mine'));
  }
  const channel = await peer.subscribe('$mine', { token: pass('42', '$mine') });
  await channel.publish('mine alone');
  assert.deepEqual(await channel.events.count(1), ['mine alone']);
  await peer.subscribe('shut:x', { token: pass('42', 'shut:x') });
  assert.equal(peer.events.all('connecting').length, 1);
});

scenario('a subscription outlives its token by fresh ones', KEYED, async (house) => {
  const peer = await house.user('42');
  let asked = 0;
  const getToken = async ({ channel }) => {
    asked += 1;
    return pass('42', channel, { exp: inSeconds(asked === 1 ? -60 : 2) });
  };
  const channel = await peer.subscribe('$mine', { getToken });
  assert.equal(channel.events.all('error')[0].error.code, 109, 'the first one was expired');
  // Longer than the server waits for a fresh one.
  await settles(() => asked >= 6, 'asked for six tokens');
  await channel.publish('still here');
  await channel.events.count(1);
  assert.equal(channel.events.all('subscribed').length, 1, 'it was cut off');
});

scenario('a subscription ends with its token', KEYED, async (house) => {
  const peer = await house.user('42');
  const first = pass('42', '$mine', { exp: inSeconds(2) });
  const channel = await peer.subscribe('$mine', { token: first, getToken: never });
  const told = await channel.events.next('subscribing', ({ code }) => code !== 0);
  assert.equal(told.code, 2501);
  assert.ok(told.reason.length > 0);
  assert.equal((await channel.events.next('error')).error.code, 109);
  assert.equal(peer.events.all('connecting').length, 1);
});

scenario('a channel for listed users lets nobody else in', KEYED, async (house) => {
  const [ann, bob, nobody] = [await house.user('42'), await house.user('7'),
    await house.dial({ token: token({}) })];
  for (const name of ['chat#42', '#42', 'chat#5,42', 'chat:room#42']) {
    const channel = await ann.subscribe(name);
    for (const peer of [bob, nobody]) assert.equal((await peer.refused(name)).code, 103);
    await channel.publish('for me');
    await channel.events.count(1);
    await assert.rejects(bob.sdk.publish(name, 'let me in'), { code: 103 });
  }
  for (const name of ['chat#', 'chat#4', 'chat#42,7x', 'plain:x#42']) {
    assert.equal((await (name === 'chat#42,7x' ? bob : ann).refused(name)).code, 103, name);
  }
});

const WILD = { NAMESPACES: JSON.stringify([...NAMESPACES, { name: '', allow_wildcards: true }]) };

scenario('a pattern hears of every channel that it matches', WILD, async (house) => {
  const [peer, other] = await Promise.all([house.dial(), house.dial()]);
  const news = await peer.subscribe('news.*');
  const both = await peer.subscribe('wild:a.*');
  const exact = await peer.subscribe('news.sport');
  for (const name of ['news.sport', 'news.', 'news', 'newspaper', 'news.x.y', 'wild:a.1',
    'wild:b.1']) {
    await other.sdk.publish(name, name);
  }
  for (const name of ['news.x#42', '$news.x', 'private-news.x', 'news.x']) {
    await house.api('publish', { channel: name, data: name });
  }
  await news.events.next('publication', ({ data }) => data === 'news.x');
  assert.deepEqual(news.events.data.filter((data) => data !== 'news.').sort(),
    ['news.sport', 'news.x', 'news.x.y']);
  assert.deepEqual(await both.events.count(1), ['wild:a.1']);
  assert.deepEqual(await exact.events.count(1), ['news.sport']);
  news.unsubscribe();
  const isAnswered = (frame) => frame.includes('"unsubscribe":{}');
  await settles(() => peer.received.some(isAnswered), 'answered');
  await other.sdk.publish('news.sport', 'later');
  await exact.events.count(2);
  assert.ok(!peer.received.some((frame) => parts(frame).some(({ push }) => (
    push?.channel === 'news.*' && push.pub.data === 'later'))), 'it came all the same');
});

scenario('a pattern is for reading alone, and only where the namespace says so', WILD,
  async (house) => {
    const peer = await house.dial();
    for (const name of ['chat:a.*', 'plain:*', '*', 'ne*ws', '*:a', 'news.*.x', 'private-*',
      '$news.*', 'news.#*', 'presence-x.*']) {
      const told = await peer.refused(name);
      assert.ok(told.code >= 100 && told.code < 110, `${name}: ${JSON.stringify(told)}`);
    }
    const pattern = await peer.subscribe('wild:a.*');
    await assert.rejects(pattern.publish('to all of them'), ({ code }) => code >= 100);
    await assert.rejects(pattern.history({ limit: 1 }), ({ code }) => code >= 100);
    await assert.rejects(pattern.presence(), ({ code }) => code >= 100);
  });

scenario('a token brings subscriptions along', KEYED, async (house) => {
  const names = ['feed:a', 'shut:b', '$mine'];
  const peer = await house.user('42', { channels: names });
  for (const name of names) {
    await peer.events.next('subscribed', () => peer.events.all('subscribed')
      .some(({ channel }) => channel === name));
    await house.api('publish', { channel: name, data: name });
  }
  await peer.events.count(3);
  const told = peer.events.all('publication').map(({ channel, data }) => [channel, data]);
  assert.deepEqual(told.sort(), [['$mine', '$mine'], ['feed:a', 'feed:a'], ['shut:b', 'shut:b']]);
  // A client's own subscription to the same channel is one too many.
  const own = peer.channel('feed:a');
  own.subscribe();
  assert.equal((await own.events.next('unsubscribed')).code, 105);
});

scenario('a server subscribes a user and ends it again', KEYED, async (house) => {
  const [phone, desk] = await Promise.all([house.user('42'), house.user('42')]);
  await house.api('subscribe', { user: '42', channel: 'shut:news', data: { why: 'because' } });
  for (const { events } of [phone, desk]) {
    const told = await events.next('subscribed');
    assert.deepEqual([told.channel, told.data], ['shut:news', { why: 'because' }]);
  }
  await house.api('publish', { channel: 'shut:news', data: 1 });
  for (const { events } of [phone, desk]) assert.deepEqual(await events.count(1), [1]);
  await house.api('unsubscribe', { user: '42', channel: 'shut:news' });
  for (const { events } of [phone, desk]) {
    assert.equal((await events.next('unsubscribed')).channel, 'shut:news');
  }
  // It ends those that a client asked for as well.
  const channel = await phone.subscribe('chat:lobby');
  await house.api('unsubscribe', { user: '42', channel: 'chat:lobby' });
  const told = await channel.events.next('unsubscribed');
  assert.ok(told.code >= 2000 && told.code < 2500 && told.reason.length > 0, JSON.stringify(told));
});

const LIMITED = { MAX_SUBSCRIPTIONS: '3', MAX_CHANNEL_NAME: '20' };

scenario('subscriptions and their names have limits', LIMITED,
  async (house) => {
    const peer = await house.dial();
    assert.equal((await peer.refused(`plain:${'x'.repeat(15)}`)).code, 107);
    await peer.subscribe(`plain:${'x'.repeat(14)}`);
    await peer.subscribe('plain:b');
    const third = await peer.subscribe('plain:c');
    assert.equal((await peer.refused('plain:d')).code, 106);
    third.unsubscribe();
    peer.sdk.getSubscription('plain:d').subscribe();
    await peer.sdk.getSubscription('plain:d').events.next('subscribed');
    assert.equal(peer.events.all('connecting').length, 1);
  });

together('channels');
