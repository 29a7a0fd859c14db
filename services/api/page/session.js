// @ts-check
/** Who is signed in, on the pages of those who are. */

import { post, session } from "./api.js";
import { complain } from "./messages.js";

window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // what a browser kept may be another user's by now
});

export async function signOut() {
  session.begun = false; // they know why it is over
  try {
    await post("/auth/logout");
    location.replace("/login");
  } catch (error) {
    session.begun = true;
    complain("You could not be signed out", error);
  }
}
