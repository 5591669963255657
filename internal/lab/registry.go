package lab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/crypto/bcrypt"
)

// A Registry is a stock registry, over plain HTTP.
type Registry struct {
	*Process
	Addr string // host:port

	machine *Machine
	config  string // file
}

// CollectGarbage has a registry that was stopped remove the blobs that no manifest leads to, and returns what it says of that.
func (r *Registry) CollectGarbage(ctx context.Context, flags ...string) (string, error) {
	return Output(r.machine.Command(ctx, "registry", append(append([]string{"garbage-collect"}, flags...), r.config)...))
}

const registryConfig = `version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
    maxthreads: 100
  delete:
    enabled: true
http:
  addr: %s
`

// registryAuth goes behind it where a registry wants a name and a password.
const registryAuth = `auth:
  htpasswd:
    realm: lab
    path: %s
`

// StartRegistry starts a registry on the machine.
func (m *Machine) StartRegistry(ctx context.Context) (*Registry, error) {
	return m.startRegistry(ctx, "")
}

// StartPrivateRegistry starts one that gives nothing to anybody but a user with a password. What StartRegistry's had, it has.
func (m *Machine) StartPrivateRegistry(ctx context.Context, user, password string) (*Registry, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(m.run, "htpasswd")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600); err != nil {
		return nil, err
	}
	return m.startRegistry(ctx, fmt.Sprintf(registryAuth, file))
}

func (m *Machine) startRegistry(ctx context.Context, auth string) (*Registry, error) {
	port, err := m.Port(5000)
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("%s:%d", m.Addr(), port)
	config := filepath.Join(m.run, "registry.yml")
	text := fmt.Sprintf(registryConfig, filepath.Join(m.dir, "registry"), addr) + auth
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := m.Command(context.WithoutCancel(ctx), "registry", "serve", config)
	cmd.Env = append(cmd.Env, "OTEL_TRACES_EXPORTER=none")
	p, err := m.lab.start("the registry on "+m.Name, filepath.Join(m.dir, "registry.log"), cmd)
	if err != nil {
		return nil, err
	}
	client := m.HTTPClient()
	defer client.CloseIdleConnections()
	err = p.ready(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return &Registry{Process: p, Addr: addr, machine: m, config: config}, err
}
