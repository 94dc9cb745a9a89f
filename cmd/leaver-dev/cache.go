package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leaverhq/leaver/internal/devstack"
)

// cacheVariable is the environment variable with the URL of the cache's administrator.
const cacheVariable = "LEAVER_DEV_CACHE_URL"

// cache is a Redis server in which an agent has an account, if redis-server is installed.
type cache struct {
	address, secret string
	admin           *redis.Client
}

// startCache starts a Redis server. It returns nil if redis-server is not installed.
func startCache(ctx context.Context) (*cache, func(), error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, func() {}, nil //nolint:nilerr // the demonstration does without it
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen for the cache: %w", err)
	}
	c := &cache{address: listener.Addr().String(), secret: rand.Text()}
	_ = listener.Close() // redis-server takes the port
	dir, err := os.MkdirTemp("", "leaver-dev-cache")
	if err != nil {
		return nil, nil, fmt.Errorf("create the cache's folder: %w", err)
	}
	users := filepath.Join(dir, "users.acl")
	acl := "user default off\nuser leaver on >" + c.secret + " ~* &* +@all\n"
	if err := os.WriteFile(users, []byte(acl), 0o600); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("write the cache's users: %w", err), os.RemoveAll(dir))
	}
	_, port, _ := strings.Cut(c.address, ":")
	stop, err := devstack.RunServer(exec.CommandContext(context.WithoutCancel(ctx), program,
		"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--aclfile", users))
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	c.admin = redis.NewClient(&redis.Options{
		Addr: c.address, Username: "leaver", Password: c.secret, Protocol: 2, MaxRetries: 50,
		MinRetryBackoff: 20 * time.Millisecond, MaxRetryBackoff: 100 * time.Millisecond,
	})
	closeAll := func() { _ = c.admin.Close(); stop(); _ = os.RemoveAll(dir) }
	if err := c.admin.Ping(ctx).Err(); err != nil {
		closeAll()
		return nil, nil, fmt.Errorf("wait for the cache: %w", err)
	}
	return c, closeAll, nil
}

// yaml returns the connector of the cache in leaver.yaml, or nothing without a cache.
func (c *cache) yaml(tenant string) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("  - name: cache\n    type: redis\n    tenants: [%s]\n    url: env:%s\n", tenant, cacheVariable)
}

// url returns the URL of the cache's administrator, or nothing without a cache.
func (c *cache) url() string {
	if c == nil {
		return ""
	}
	return "redis://leaver:" + c.secret + "@" + c.address
}

// login opens a connection as a user.
func (c *cache) login(ctx context.Context, user, password string) error {
	client := redis.NewClient(&redis.Options{
		Addr: c.address, Username: user, Password: password, Protocol: 2, MaxRetries: -1,
	})
	defer func() { _ = client.Close() }()
	return client.Ping(ctx).Err()
}

// cacheAccount creates an account for an agent in the cache.
func (d *drill) cacheAccount(ctx context.Context) (h *holding, user, password string, err error) {
	c := d.peers.cache
	user, password = "agent-"+d.peers.suffix, rand.Text()
	if err := c.admin.Do(ctx, "ACL", "SETUSER", user, "on", ">"+password, "~*", "+@read", "+ping").Err(); err != nil {
		return nil, "", "", fmt.Errorf("create the cache's user: %w", err)
	}
	h = &holding{what: "service account, cache", where: "Redis"}
	h.use = func(ctx context.Context) error { return c.login(ctx, user, password) }
	h.dead = func(ctx context.Context) (string, error) {
		var refused redis.Error
		switch err := c.login(ctx, user, password); {
		case err == nil:
			return "", errWorks
		case errors.As(err, &refused) && strings.HasPrefix(refused.Error(), "WRONGPASS"):
			return "its login is refused: WRONGPASS", nil
		default:
			return "", err
		}
	}
	return h, user, password, nil
}
