// Fills in the sign-in from the fragment of a link, and shows the content of a page again as the server sends it.
'use strict';

const signIn = document.getElementById('sign-in');
if (signIn && location.hash.length > 1) {
  signIn.elements.secret.value = location.hash.slice(1);
  history.replaceState(null, '', location.pathname);
  // A person presses the button, so that no other site signs a browser in.
  document.getElementById('go').focus();
}

// After a sign-in at an identity provider; see finishLogin.
document.getElementById('next')?.click();

const main = document.getElementById('main');
if (main && 'live' in main.dataset) {
  const notice = document.getElementById('changed');
  const normal = (html) => {
    const parsed = document.createElement('template');
    parsed.innerHTML = html;
    return parsed.innerHTML.trim();
  };
  let shown = normal(main.innerHTML);
  let pending = null;
  // A form that a person has opened or filled in stays as it is until it is sent, or emptied and closed.
  const busy = () => main.querySelector('details[open] :focus, form :focus, details.opened') !== null ||
    Array.from(main.querySelectorAll('form input')).some((field) => field.value !== field.defaultValue) ||
    Array.from(main.querySelectorAll('form option')).some((option) => option.selected !== option.defaultSelected);
  const show = () => {
    notice.hidden = pending === null || !busy();
    if (pending === null || !notice.hidden) return;
    const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
    main.innerHTML = shown = pending;
    pending = null;
    if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  };
  main.addEventListener('toggle', (event) => {
    event.target.classList.toggle('opened', event.target.open);
    show();
  }, true);
  main.addEventListener('focusout', () => setTimeout(show));
  new EventSource(location.href).onmessage = (event) => {
    const content = normal(event.data);
    pending = content === shown ? null : content;
    show();
  };
}
