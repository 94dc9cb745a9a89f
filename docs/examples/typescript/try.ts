// Prints "permitted" or "denied" for each line on standard input; a line is the JSON of a call.
// Run by the project's tests: node try.ts URL TOKEN EVENTS EVENT_TOKEN
import { createInterface } from "node:readline";
import { Guard } from "./leaver.ts";

const [url, token, events, eventToken] = process.argv.slice(2);
const guard = new Guard(url, token, 60_000);
const stop = new AbortController();
guard.listen(events, eventToken, stop.signal);
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log((await guard.permitted(JSON.parse(line))) ? "permitted" : "denied");
  } catch (e) {
    console.log("unavailable");
  }
}
process.exit(0);
