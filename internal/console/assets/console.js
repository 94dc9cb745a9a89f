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
  let pending = null;
  const show = () => {
    // A form that a person has opened stays as it is until it is closed.
    if (pending === null || main.querySelector('details[open] :focus, form :focus, details.opened')) return;
    const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
    main.innerHTML = pending;
    pending = null;
    if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  };
  main.addEventListener('toggle', (event) => {
    event.target.classList.toggle('opened', event.target.open);
    show();
  }, true);
  main.addEventListener('focusout', () => setTimeout(show));
  new EventSource(location.href).onmessage = (event) => {
    pending = event.data;
    show();
  };
}
