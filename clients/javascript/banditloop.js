// Decisions, rewards and activity from a web page. Everybody can read the key of a page: give it the
// scopes rank, reward and activity only, its policies, its space and a rate. It needs
// BANDITLOOP_CORS_ORIGINS.

export function banditloop({ url, policy, space = policy, key = null, timeoutMs = 1000 }) {
  const base = `${url}/v1/policies/${encodeURIComponent(policy)}`;
  const shared = `${url}/v1/spaces/${encodeURIComponent(space)}`;
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;

  // keepalive: it arrives also when the page is left in the same moment. (sendBeacon would send
  // cookies, and cannot send a key.)
  const post = (path, body, options) =>
    fetch(path, {
      method: "POST", headers, body: JSON.stringify(body), credentials: "omit", ...options,
    });
  const event = (decision, what, body) => decision.event_id === null ? Promise.resolve() :
    post(`${base}/events/${encodeURIComponent(decision.event_id)}/${what}`, body, { keepalive: true });

  return {
    // A decision among actions: [{id, features}]. When none comes in time, the first ones are shown.
    async rank(actions, { slots = 1, ...fields } = {}) {
      const body = { actions, slots, defer_activation: true, ...fields };
      try {
        const answer = await post(`${base}/rank`, body, { signal: AbortSignal.timeout(timeoutMs) });
        if (answer.ok) return await answer.json();
      } catch { /* the page goes on without a decision */ }
      return { event_id: null, chosen: actions.slice(0, slots).map(({ id }, slot) => ({ slot, id })) };
    },
    // The decision counts from now on: call it when the visitor sees what was chosen.
    show: (decision) => event(decision, "activate", {}),
    // Higher is better; reward_id makes a reward that is sent twice count once.
    reward: (decision, value = 1, { slot, signal, reward_id = crypto.randomUUID() } = {}) =>
      event(decision, "reward", { value, slot, signal, reward_id }),
    // What a visitor does outside of decisions, as "view"; what is sent twice with an id counts once.
    did: (user_id, item_id, type, { id = crypto.randomUUID(), ...fields } = {}) =>
      post(`${shared}/activity`, { user_id, item_id, type, id, ...fields }, { keepalive: true }),
  };
}
