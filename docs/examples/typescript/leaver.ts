// An example of a gateway's middleware: it asks leaver before each call, remembers permits for a short
// time, and forgets them when leaver sends a security event. It fails closed.
// It needs no package, and runs as it is with Node.js 22.18 or later.

export interface Call {
  sub: string; // the sub and client_id of the verified token
  client: string;
  action: string;
  resource: { type: string; id: string };
}

export class Guard {
  url: string; // of leaver
  token: string; // of class platform, which names the issuer
  remember: number; // how long a permit is used without asking, in milliseconds; 0 asks each time
  permits = new Map<string, number>();
  forgotten = 0; // how often permits were forgotten
  live = false; // events arrive: only then are permits remembered

  constructor(url: string, token: string, remember = 0) {
    this.url = url;
    this.token = token;
    this.remember = remember;
  }

  // permitted returns whether a call may pass. It throws if leaver does not answer: answer 503 then.
  async permitted(call: Call): Promise<boolean> {
    const question = JSON.stringify({
      subject: { type: "identity", id: call.sub },
      action: { name: call.action },
      resource: call.resource,
      context: { agent: call.client },
    });
    if (this.live && (this.permits.get(question) ?? 0) > Date.now()) return true;
    const asked = this.forgotten;
    const answer = await this.post(`${this.url}/access/v1/evaluation`, this.token, question, 2_000);
    if (answer.decision !== true) return false;
    if (this.permits.size > 10_000) this.permits.clear();
    // A permit that was given before an event is used once.
    if (asked === this.forgotten) this.permits.set(question, Date.now() + this.remember);
    return true;
  }

  // listen forgets all permits whenever leaver sends an event. events is the poll URL of a stream, and
  // token one of class receiver.
  async listen(events: string, token: string, signal: AbortSignal): Promise<void> {
    let ack: string[] = [];
    while (!signal.aborted) {
      try {
        const { sets } = await this.post(events, token, JSON.stringify({ ack }), 40_000);
        ack = Object.keys(sets);
        if (ack.length > 0) this.forget();
        this.live = true;
      } catch {
        this.live = false; // it goes on without remembering permits
        this.forget();
        await new Promise((done) => setTimeout(done, 1_000));
      }
    }
  }

  forget(): void {
    this.permits.clear();
    this.forgotten++;
  }

  async post(url: string, token: string, body: string, timeout: number): Promise<any> {
    const response = await fetch(url, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body,
      signal: AbortSignal.timeout(timeout),
    });
    if (response.status !== 200) throw new Error(`leaver answered ${response.status}`);
    return response.json();
  }
}
