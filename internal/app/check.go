package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/siem"
	"github.com/leaverhq/leaver/worker"
)

// checkTimeout bounds the check of PostgreSQL or Temporal.
const checkTimeout = 10 * time.Second

// checkStart returns an error that a retry cannot fix, such as a wrong password, role, schema or
// namespace. If PostgreSQL or Temporal is down, it only logs a warning.
func (a *App) checkStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := a.DB.CheckSchema(ctx)
	if errors.Is(err, database.ErrMisconfigured) {
		return err
	}
	if err != nil {
		a.Log.Warn("failed to reach PostgreSQL; starting without it", "error", err)
	}
	namespace, err := worker.CheckNamespace(ctx, a.Temporal, a.Config.Temporal)
	if errors.Is(err, worker.ErrMisconfigured) {
		return err
	}
	if err != nil {
		a.Log.Warn("failed to reach Temporal; starting without it", "error", err)
	} else if err := namespace.CheckArchive(); err != nil {
		return err
	} else if short := namespace.Short(a.Config.Temporal); short != "" {
		a.Log.Warn("found Temporal retention below temporal.minimum_retention", "reason", short)
	}
	return nil
}

// Finding is the result of the check of one part of the configuration.
type Finding struct {
	Part   string `json:"part"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Check checks the key set, the connectors' settings, PostgreSQL with the application's role and,
// if the key set loads, Temporal's namespace. It changes nothing.
func Check(ctx context.Context, cfg *config.Config, log *slog.Logger) []Finding {
	var findings []Finding
	add := func(part, detail string, err error) {
		if err != nil {
			detail = err.Error()
		}
		findings = append(findings, Finding{part, err == nil, detail})
	}
	for _, warning := range cfg.Warnings {
		add("environment", "", errors.New(warning))
	}
	sealer, err := seal.Load(cfg.Seal.KeysetFile, cfg.Seal.Keyset)
	add("key set", "readable", errors.Join(err, checkMode(cfg.Seal.KeysetFile)))
	sink, err := siem.Open(cfg.Audit)
	add("audit sink", "configured, or none", err)
	if sink != nil {
		_ = sink.Close()
	}
	_, err = openCertificates(cfg.Serve, log)
	add("certificates", "readable, or none", err)
	registry, err := worker.Connectors(cfg)
	add("connectors", fmt.Sprintf("%d configured", len(cfg.Connectors)), err)
	if err == nil {
		results := registry.Check(ctx)
		for _, name := range slices.Sorted(maps.Keys(results)) {
			add("connector "+name, "the downstream accepts it", results[name])
		}
		for _, text := range registry.Overlaps() {
			add("connectors", text, nil) // legal, if no account is registered at both
		}
		registry.Close()
	}
	add("postgresql", "reachable, and the schema is current", checkDatabase(ctx, cfg))
	if sealer != nil {
		namespace, err := checkTemporal(ctx, cfg, sealer, log)
		add("temporal", fmt.Sprintf("namespace %s keeps closed workflows for %s", namespace.Name, namespace.Retention), err)
	}
	return findings
}

// checkMode returns an error if other users than the file's owner and group have access to it.
func checkMode(file string) error {
	if file == "" {
		return nil
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o007 == 0 {
		return nil //nolint:nilerr // seal.Load returns the error of reading it
	}
	return fmt.Errorf("the key set %s can be read by every user of this machine: run `chmod o-rwx %s`", file, file)
}

func checkDatabase(ctx context.Context, cfg *config.Config) error {
	if cfg.Database.URL == "" {
		return errNoDatabase
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	db, err := database.Open(ctx, cfg.Database.URL)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.CheckSchema(ctx)
}

func checkTemporal(
	ctx context.Context, cfg *config.Config, sealer *seal.Sealer, log *slog.Logger,
) (worker.Namespace, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c, err := worker.NewClient(cfg.Temporal, sealer, log, nil)
	if err != nil {
		return worker.Namespace{}, err
	}
	defer c.Close()
	namespace, err := worker.CheckNamespace(ctx, c, cfg.Temporal)
	if err != nil {
		return namespace, err
	}
	if short := namespace.Short(cfg.Temporal); short != "" {
		return namespace, errors.New(short)
	}
	return namespace, nil
}
