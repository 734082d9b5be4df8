// What the parts of the server share: the driver's configuration, what tests may change, and what is stored.

import { createInterface } from 'node:readline';

// Standard output is the driver's.
console.info = console.error;

// The driver keeps standard input open: it closes when the driver ended or was killed, and nothing is left behind.
const lines = createInterface({ input: process.stdin });
export const config = await new Promise((resolve) => { lines.once('line', (line) => resolve(JSON.parse(line))); });
lines.once('close', () => process.exit(0));

export const settings = {};
export const counts = new Map(); // token requests, by client and grant type
export const issued = new Map(); // access token → whose it is, what for and until when
export const tables = new Map(); // oidc-provider's models → id → row

export const now = () => Math.floor(Date.now() / 1000);

// oidc-provider's own storage forgets what is past its end, and then takes an expired device code for an unknown one.
export class Storage {
  constructor(model) {
    this.model = model;
    this.rows = new Map();
    tables.set(model, this.rows);
  }

  async upsert(id, row) { this.rows.set(id, row); }

  async find(id) { return this.rows.get(id); }

  async findByUserCode(code) { return this.rows.values().find((row) => row.userCode === code); }

  async findByUid(uid) { return this.rows.values().find((row) => row.uid === uid); }

  async consume(id) {
    // Microsoft leaves a refresh token alive when it hands out the next one; oidc-provider never does.
    if (this.model === 'RefreshToken' && settings.old_refresh_tokens_live) return;
    this.rows.get(id).consumed = now();
  }

  async destroy(id) { this.rows.delete(id); }

  async revokeByGrantId(grantId) {
    for (const [id, row] of this.rows) if (row.grantId === grantId) this.rows.delete(id);
  }
}

export function reset() {
  for (const store of [...tables.values(), counts, issued]) store.clear();
  Object.assign(settings, structuredClone(config.settings));
}

reset();
