package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/tenant"
)

// applicationVariable is the environment variable with the SCIM token of the application.
const applicationVariable = "LEAVER_DEV_APPLICATION_TOKEN"

// application is an application with SCIM 2.0 in which Ada has an account: another tenant of this leaver.
type application struct {
	url   string // of its SCIM server
	token string
}

// open creates the application's tenant and its token, before the connectors read it.
func (a *application) open(ctx context.Context, cfg *config.Config, name string) error {
	db, err := database.Open(ctx, cfg.Database.URL)
	if err != nil {
		return err
	}
	defer db.Close()
	tenants := tenant.NewStore(db)
	of, err := tenants.Create(ctx, name, tenant.ProfileDefault)
	if err != nil {
		return err
	}
	if _, a.token, err = auth.NewStore(db, tenants).Issue(ctx, of.ID, auth.NewToken{
		Class: auth.ClassSCIM, Description: "leaver-dev, as a SCIM client",
	}); err != nil {
		return err
	}
	if err := os.Setenv(applicationVariable, a.token); err != nil {
		return fmt.Errorf("set %s: %w", applicationVariable, err)
	}
	return nil
}

// applicationAccount creates an account for Ada in the application.
func (d *drill) applicationAccount(ctx context.Context) (*holding, string, error) {
	path := "/t/app-" + d.peers.suffix + "/scim/v2/Users"
	var created struct {
		ID     string `json:"id"`
		Active *bool  `json:"active"`
	}
	if err := d.call(ctx, http.MethodPost, path, d.peers.application.token, map[string]any{
		"schemas":  []string{"urn:ietf:params:scim:schemas:core:2.0:User"},
		"userName": "ada.lovelace@example.com", "active": true,
	}, &created); err != nil {
		return nil, "", err
	}
	active := func(ctx context.Context) (bool, error) {
		err := d.call(ctx, http.MethodGet, path+"/"+created.ID, d.peers.application.token, nil, &created)
		return created.Active != nil && *created.Active, err
	}
	h := &holding{what: "account in an application", where: "SCIM application"}
	h.use = func(ctx context.Context) error {
		if is, err := active(ctx); err != nil || !is {
			return errors.Join(errors.New("the account is not active"), err)
		}
		return nil
	}
	h.dead = func(ctx context.Context) (string, error) {
		if is, err := active(ctx); err != nil || is {
			return "", errors.Join(errWorks, err)
		}
		return "the application's SCIM server says active: false", nil
	}
	return h, created.ID, nil
}
