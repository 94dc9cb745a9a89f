package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/apiclient"
)

// loginTimeout is how long `leaver login` waits for the browser.
const loginTimeout = 10 * time.Minute

// sessionFile returns the file in which `leaver login` keeps the URL of an installation and a session there. Other
// commands use it for that URL if they have no other token.
func sessionFile() (string, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the folder of the session: %w", err)
	}
	return filepath.Join(folder, "leaver", "session"), nil
}

func (c *cli) loginCommand() *cobra.Command {
	return &cobra.Command{
		Use: "login", Args: cobra.NoArgs,
		Short: "Sign in by the identity provider of the installation, in a browser on this machine",
		Long: "Login prints a link to open in a browser on this machine, waits until the identity provider\n" +
			"has signed you in, and keeps a session of 8 hours in your configuration folder.\n" +
			"LEAVER_TOKEN and --token-file take precedence.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), loginTimeout)
			defer cancel()
			base := c.base()
			secret, err := c.awaitSignIn(ctx, base)
			if err != nil {
				return err
			}
			transport, err := httpClient()
			if err != nil {
				return err
			}
			open := apiclient.Client{Base: base + api.BasePath, HTTP: transport}
			var session struct {
				Token string `json:"token"`
			}
			err = open.Do(ctx, http.MethodPost, "/sessions", map[string]string{"signIn": secret}, &session)
			if err != nil {
				return (&client{}).coded(err)
			}
			path, err := sessionFile()
			if err == nil {
				err = os.MkdirAll(filepath.Dir(path), 0o700)
			}
			if err == nil {
				err = os.WriteFile(path, []byte(base+"\n"+session.Token+"\n"), 0o600)
			}
			if err != nil {
				return fmt.Errorf("keep the session: %w", err)
			}
			_, err = fmt.Fprintln(c.stderr, "signed in; the session is in", path)
			return err
		},
	}
}

// awaitSignIn prints the link, and returns the secret of the sign-in that the browser brings to a loopback port
// (RFC 8252 section 7.3).
func (c *cli) awaitSignIn(ctx context.Context, base string) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the browser: %w", err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return "", err
	}
	state, received := rand.Text(), make(chan string, 1)
	receive := func(w http.ResponseWriter, r *http.Request) {
		got := r.URL.Query()
		if subtle.ConstantTimeCompare([]byte(got.Get("state")), []byte(state)) == 0 || got.Get("signIn") == "" {
			http.Error(w, "state does not match: open the link that leaver login printed", http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, "You are signed in: go back to the terminal.\n")
		select {
		case received <- got.Get("signIn"):
		default: // the page was loaded again
		}
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(receive)}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Shutdown(context.WithoutCancel(ctx)) }()
	link := base + api.ConsolePath + "/login?" + url.Values{"port": {port}, "state": {state}}.Encode()
	if _, err := fmt.Fprintf(c.stderr, "Open this link in a browser on this machine:\n%s\n", link); err != nil {
		return "", err
	}
	select {
	case secret := <-received:
		return secret, nil
	case <-ctx.Done():
		return "", fmt.Errorf("no sign-in within %s; run `leaver login` again: %w", loginTimeout, ctx.Err())
	}
}
