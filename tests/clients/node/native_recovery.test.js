// What a subscriber missed, as the unmodified `centrifuge` SDK asks for it: after a cut, too late,
// from a server that started anew, on subscriptions of both kinds; and who reads too slowly.
'use strict';

const assert = require('node:assert/strict');
const { NAMESPACES, OPEN, SECRET, scenario, settles, together, token } = require('./native.js');

const KEYED = { TOKEN_SECRET: SECRET };
const numbered = (count) => Array.from({ length: count }, (_, at) => at + 1);
const between = (first, last) => numbered(last).slice(first - 1);
const of = (numbers) => numbers.map((n) => ({ n }));

/** Publishes these numbers, one after the other. */
async function publish(house, channel, numbers) {
  for (const n of numbers) await house.publish(channel, n);
}

/** A subscription of somebody whose connection a proxy can cut. */
async function behindProxy(house, name, options, claims) {
  const proxy = await house.proxy();
  const peer = claims ? await house.user('42', claims, proxy.url) : await house.dial({}, proxy.url);
  return { proxy, peer, channel: name && await peer.subscribe(name, options) };
}

/** Cuts, and has `meanwhile` done before the peer is back. Gives what it was told when it was. */
async function away(proxy, events, meanwhile) {
  proxy.shut();
  await events.next('subscribing', ({ code }) => code !== 0);
  await meanwhile();
  proxy.reopen();
  return events.next('subscribed');
}

scenario('what was missed comes in its place', {}, async (house) => {
  const { proxy, channel } = await behindProxy(house, 'chat:lobby', { recoverable: true });
  const { streamPosition } = channel.context;
  assert.deepEqual([channel.context.recoverable, streamPosition.offset], [true, 0]);
  await publish(house, 'chat:lobby', [1, 2]);
  await channel.events.count(2);
  const told = await away(proxy, channel.events, () => publish(house, 'chat:lobby', [3, 4, 5]));
  assert.deepEqual([told.wasRecovering, told.recovered, told.hasRecoveredPublications],
    [true, true, true]);
  assert.equal(told.streamPosition.epoch, streamPosition.epoch);
  await publish(house, 'chat:lobby', [6]);
  assert.deepEqual(await channel.events.count(6), of(numbered(6)));
  assert.deepEqual(channel.events.all('publication').map(({ offset }) => offset), numbered(6));
  const again = await away(proxy, channel.events, async () => {});
  assert.deepEqual([again.recovered, again.hasRecoveredPublications], [true, false]);
  await publish(house, 'chat:lobby', [7]);
  assert.deepEqual(await channel.events.count(7), of(numbered(7)));
});

scenario('who came before the first message recovers it', {}, async (house) => {
  const { proxy, channel } = await behindProxy(house, 'chat:quiet', { recoverable: true });
  const told = await away(proxy, channel.events, () => publish(house, 'chat:quiet', [1, 2]));
  assert.deepEqual([told.wasRecovering, told.recovered], [true, true]);
  assert.deepEqual(await channel.events.count(2), of([1, 2]));
});

scenario('who is sent away misses nothing either', KEYED, async (house) => {
  const peer = await house.user('42');
  const channels = await Promise.all(numbered(10).map((n) => (
    peer.subscribe(`chat:${n}`, { recoverable: true }))));
  for (const round of numbered(5)) {
    const sent = house.api('disconnect',
      { user: '42', disconnect: { code: 3011, reason: 'force reconnect' } });
    await Promise.all([sent, ...channels.map(({ channel }) => house.publish(channel, round))]);
    for (const { events } of channels) await events.next('subscribed');
  }
  for (const { events } of channels) assert.deepEqual(await events.count(5), of(numbered(5)));
});

scenario('what is no longer kept cannot be recovered, and it is said so', {}, async (house) => {
  const { proxy, channel } = await behindProxy(house, 'feed:x');
  assert.ok(channel.context.recoverable, 'the namespace insists on it');
  await publish(house, 'feed:x', [1]);
  await channel.events.count(1);
  const most = await away(proxy, channel.events, () => (
    publish(house, 'feed:x', between(2, 11))));
  assert.equal(most.recovered, true, 'ten are kept, ten were missed');
  await channel.events.count(11);
  const more = await away(proxy, channel.events, () => (
    publish(house, 'feed:x', between(12, 22))));
  assert.deepEqual([more.wasRecovering, more.recovered, more.hasRecoveredPublications],
    [true, false, false]);
  assert.equal(more.streamPosition.offset, 22);
  await publish(house, 'feed:x', [23]);
  assert.deepEqual(await channel.events.count(12), of([...numbered(11), 23]));
  const next = await away(proxy, channel.events, () => publish(house, 'feed:x', [24]));
  assert.equal(next.recovered, true);
  await channel.events.count(13);
});

scenario('no more is recovered at once than the operator wants', { RECOVERY_MAX: '5' },
  async (house) => {
    const { proxy, channel } = await behindProxy(house, 'chat:x', { recoverable: true });
    await publish(house, 'chat:x', [1]);
    await channel.events.count(1);
    const five = await away(proxy, channel.events, () => publish(house, 'chat:x', between(2, 6)));
    assert.equal(five.recovered, true);
    await channel.events.count(6);
    const six = await away(proxy, channel.events, () => publish(house, 'chat:x', between(7, 12)));
    assert.deepEqual([six.recovered, six.streamPosition.offset], [false, 12]);
    await publish(house, 'chat:x', [13]);
    assert.deepEqual(await channel.events.count(7), of([...numbered(6), 13]));
  });

/** Publishes these by requests of many commands. */
async function pour(house, channel, messages) {
  for (let at = 0; at < messages.length; at += 50) {
    const commands = messages.slice(at, at + 50).map((data) => ({ publish: { channel, data } }));
    const { body } = await house.ask('batch', { commands });
    assert.ok(body.replies.every(({ error }) => !error), JSON.stringify(body).slice(0, 300));
  }
}

const MUCH = { NAMESPACES: JSON.stringify([
  { name: 'chat', ...OPEN, history_size: 4000, history_ttl: '300s' }]) };

scenario('as much is recovered at once as half an outbox holds', MUCH, async (house) => {
  const { proxy, peer, channel } = await behindProxy(house, 'chat:x', { recoverable: true });
  await publish(house, 'chat:x', [1]);
  await channel.events.count(1);
  const many = await away(proxy, channel.events, () => pour(house, 'chat:x', of(between(2, 2001))));
  assert.equal(many.recovered, true);
  assert.deepEqual(await channel.events.count(2001), of(numbered(2001)));
  const large = Array.from({ length: 200 }, () => 'x'.repeat(10_000));
  const more = await away(proxy, channel.events, () => pour(house, 'chat:x', large));
  assert.deepEqual([more.wasRecovering, more.recovered], [true, false]);
  await publish(house, 'chat:x', [2002]);
  assert.deepEqual(await channel.events.count(2002), of(numbered(2002)));
  assert.equal(peer.events.all('disconnected').length, 0);
});

scenario('a stream that was lost has another epoch', {}, async (house) => {
  const peer = await house.dial();
  const channel = await peer.subscribe('chat:x', { recoverable: true });
  await publish(house, 'chat:x', [1, 2]);
  await channel.events.count(2);
  await house.leave();
  await house.open();
  const told = await channel.events.next('subscribed');
  assert.deepEqual([told.wasRecovering, told.recovered, told.streamPosition.offset],
    [true, false, 0]);
  assert.notEqual(told.streamPosition.epoch, channel.context.streamPosition.epoch);
  await publish(house, 'chat:x', [3]);
  assert.deepEqual(await channel.events.count(3), of([1, 2, 3]));
  assert.equal(channel.events.all('publication')[2].offset, 1);
});

const FLEETING = { NAMESPACES: JSON.stringify([{ name: 'chat', ...OPEN, history_size: 100,
  history_ttl: '2s' }]) };

/** Waits until all of a channel's publications, which must be so many, are too old. */
async function growsOld(house, channel, many) {
  const kept = async () => {
    const { publications } = await house.api('history', { channel, limit: 10 });
    return publications?.length ?? 0;
  };
  assert.equal(await kept(), many);
  await settles(async () => await kept() === 0, 'too old');
}

scenario('what has grown too old cannot be recovered', FLEETING, async (house) => {
  const { proxy, channel } = await behindProxy(house, 'chat:x', { recoverable: true });
  const told = await away(proxy, channel.events, async () => {
    await publish(house, 'chat:x', [1, 2]);
    await growsOld(house, 'chat:x', 2);
  });
  assert.deepEqual([told.wasRecovering, told.recovered], [true, false]);
});

scenario('what had arrived may grow old, and what comes later is recovered', FLEETING,
  async (house) => {
    const { proxy, channel } = await behindProxy(house, 'chat:x', { recoverable: true });
    await publish(house, 'chat:x', [1, 2]);
    await channel.events.count(2);
    await growsOld(house, 'chat:x', 2);
    const told = await away(proxy, channel.events, () => publish(house, 'chat:x', [3]));
    assert.deepEqual([told.wasRecovering, told.recovered], [true, true]);
    assert.deepEqual(await channel.events.count(3), of([1, 2, 3]));
  });

scenario('a first subscription may begin in the past', {}, async (house) => {
  await publish(house, 'chat:x', numbered(5));
  const { epoch } = await house.api('history', { channel: 'chat:x', limit: 0 });
  const peer = await house.dial();
  const channel = await peer.subscribe('chat:x', { since: { offset: 2, epoch } });
  assert.equal(channel.context.recovered, true);
  assert.deepEqual(await channel.events.count(3), of([3, 4, 5]));
  await publish(house, 'chat:x', [6]);
  assert.deepEqual(await channel.events.count(4), of([3, 4, 5, 6]));
});

scenario('an application that loads its own state begins where that ends', {}, async (house) => {
  await publish(house, 'feed:x', numbered(12));
  const { epoch } = await house.api('history', { channel: 'feed:x', limit: 0 });
  // Two of twelve are no longer kept, so the first position is too old.
  const positions = [{ offset: 1, epoch }, { offset: 9, epoch: 'other' }, { offset: 9, epoch }];
  const loaded = [...positions];
  const peer = await house.dial();
  const channel = await peer.subscribe('feed:x', { getState: async () => loaded.shift() });
  assert.deepEqual([loaded.length, channel.context.recovered], [0, true]);
  assert.deepEqual(await channel.events.count(3), of([10, 11, 12]));
});

scenario('who asks for a position gets one where there is a stream', {}, async (house) => {
  const peer = await house.dial();
  await publish(house, 'chat:x', [1, 2, 3]);
  const { context } = await peer.subscribe('chat:x', { positioned: true });
  assert.deepEqual([context.positioned, context.streamPosition.offset], [true, 3]);
  const plain = await peer.subscribe('plain:x', { positioned: true, recoverable: true });
  assert.deepEqual([plain.context.recoverable, plain.context.recovered], [false, false]);
});

scenario('subscriptions by token recover too', KEYED, async (house) => {
  const names = ['feed:a', 'feed:b', 'plain:c'];
  const { proxy, peer } = await behindProxy(house, undefined, undefined, { channels: names });
  const { events } = peer;
  await events.until(() => events.all('subscribed').length === 3, 'three subscriptions');
  for (const name of names) await publish(house, name, [1]);
  await events.count(3);
  proxy.shut();
  await events.next('connecting', ({ code }) => code !== 0);
  for (const name of names) await publish(house, name, [2, 3]);
  proxy.reopen();
  await events.until(() => events.all('subscribed').length === 6, 'three subscriptions again');
  const again = events.all('subscribed').slice(3);
  const recovered = again.filter((one) => one.recovered).map(({ channel }) => channel);
  assert.deepEqual([...recovered].sort(), ['feed:a', 'feed:b']);
  for (const name of names) await publish(house, name, [4]);
  await events.count(10);
  const heard = (name) => events.all('publication').filter(({ channel }) => channel === name)
    .map(({ data }) => data.n);
  assert.deepEqual(names.map(heard), [[1, 2, 3, 4], [1, 2, 3, 4], [1, 4]]);
});

const LOAD = { pieces: 1600, batch: 8, bytes: 16_000 };
const SLOW = { MAX_OUTBOX_BYTES: '128KiB', MAX_MESSAGE_BYTES: '32KiB', NAMESPACES: JSON.stringify([
  ...NAMESPACES, { name: 'drop', ...OPEN, slow_policy: 'drop' },
  { name: 'last', ...OPEN, slow_policy: 'drop', history_size: 20, history_ttl: '300s' },
  { name: 'kept', ...OPEN, history_size: 20, history_ttl: '300s' }]) };

/** Has more published than the kernel and the server keep for a subscriber that does not read. A
 * second one is waited for, which reads. */
async function flood(house, peer, name) {
  const [publisher, other] = await Promise.all([house.dial(), house.dial()]);
  const quick = await other.subscribe(name);
  const filling = 'x'.repeat(LOAD.bytes);
  peer.sockets.at(-1).pause();
  for (let n = 0; n < LOAD.pieces; n += LOAD.batch) {
    await Promise.all(numbered(LOAD.batch).map((more) => (
      publisher.sdk.publish(name, { n: n + more, filling }))));
    await quick.events.count(n + LOAD.batch);
  }
  peer.sockets.at(-1).resume();
  return { publisher, quick };
}

/** The numbers that were heard, which must rise; and those that a stated gap precedes. */
function heard(events) {
  const gaps = [];
  let last = 0, isTold = false;
  for (const event of events.list) {
    if (event.name === 'subscribed') isTold = !event.recovered;
    if (event.name !== 'publication') continue;
    assert.ok(event.data.n > last, `${event.data.n} after ${last}`);
    if (event.data.n > last + 1) {
      assert.ok(isTold, `${event.data.n} after ${last}, and nobody said so`);
      gaps.push(event.data.n);
    }
    last = event.data.n;
    isTold = false;
  }
  return gaps;
}

for (const name of ['drop:x', 'last:x']) {
  scenario(`who reads slowly stays on ${name}, and is told of the gap`, SLOW, async (house) => {
    const peer = await house.dial();
    const channel = await peer.subscribe(name, { recoverable: true });
    const { publisher, quick } = await flood(house, peer, name);
    await channel.events.next('subscribed', () => channel.events.all('subscribed').length > 1);
    await publisher.sdk.publish(name, { n: LOAD.pieces + 1 });
    await channel.events.next('publication', ({ data }) => data.n === LOAD.pieces + 1);
    assert.ok(heard(channel.events).length > 0);
    assert.ok(channel.events.all('publication').length < LOAD.pieces);
    assert.equal(peer.events.all('connecting').length, 1, 'the connection was closed');
    await quick.events.count(LOAD.pieces + 1);
    assert.deepEqual(heard(quick.events), []);
  });
}

scenario('who reads slowly is cut off where nothing else is said', SLOW, async (house) => {
  const peer = await house.dial();
  const channel = await peer.subscribe('kept:x', { recoverable: true });
  const { publisher } = await flood(house, peer, 'kept:x');
  await channel.events.next('subscribed', () => channel.events.all('subscribed').length > 1);
  await publisher.sdk.publish('kept:x', { n: LOAD.pieces + 1 });
  await channel.events.next('publication', ({ data }) => data.n === LOAD.pieces + 1);
  assert.ok(heard(channel.events).length > 0);
  assert.equal(peer.events.all('connecting').length, 2);
});

together('what was missed', 2);
