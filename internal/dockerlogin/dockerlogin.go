// Package dockerlogin has the credentials that "docker login" keeps: those in Docker's configuration, and those of the
// helpers that it names. It holds none itself: each call reads them anew, so that a login is noticed.
//
// Its functions may be called concurrently.
package dockerlogin

import (
	"context"
	"fmt"
	"os"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// Credential returns what a registry's host is told; nil if there is nowhere to look, as for a service without a home.
// $DOCKER_CONFIG names the folder, and else it is ~/.docker.
func Credential() (auth.CredentialFunc, error) {
	if os.Getenv("DOCKER_CONFIG") == "" && os.Getenv("HOME") == "" {
		return nil, nil
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Docker's credentials: %w", err)
	}
	return credentials.Credential(store), nil
}

// Lookup returns user and secret for a host, as containerd's library takes them: an empty user's secret is a token to
// get others with. The file at path is read, or with an empty path what Credential reads.
func Lookup(ctx context.Context, path, host string) (user, secret string, err error) {
	var find auth.CredentialFunc
	if path == "" {
		find, err = Credential()
	} else {
		var store credentials.Store
		if store, err = credentials.NewStore(path, credentials.StoreOptions{}); err == nil {
			find = credentials.Credential(store)
		}
	}
	if err != nil || find == nil {
		return "", "", err
	}
	c, err := find(ctx, host)
	if err != nil {
		return "", "", fmt.Errorf("credentials for %s: %w", host, err)
	}
	if c.RefreshToken != "" {
		return "", c.RefreshToken, nil
	}
	return c.Username, c.Password, nil
}
