/** What a host can do with the chat's events: the list names a conversation as soon as something is said. */

const name = document.querySelector("[aria-current=page] [data-name]");

document.addEventListener(
  "durable-chat:send",
  (event) => {
    const [{ content }] = event.detail.message.parts;
    if (name?.textContent === "New conversation") name.textContent = content.slice(0, 80);
  },
);
