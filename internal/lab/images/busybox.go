package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeBusybox makes an image of Debian's busybox, which is static, and a symbolic link
// for each command that it knows: the least that has a shell.
func makeBusybox(ctx context.Context, j job) error {
	root := filepath.Join(j.work, "root")
	if err := (bootstrap{}).run(ctx, j, root, "--variant=extract", "--include=busybox-static"); err != nil {
		return err
	}
	program := filepath.Join(root, "bin/busybox")
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	list, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox --list: %w", err)
	}
	return j.write(ctx, Image{
		Layers: []Layer{{CreatedBy: "COPY busybox /bin", Tar: Tar(func(t *Tarball) {
			for _, dir := range []string{"bin", "dev", "proc", "sys", "etc"} {
				t.Dir(dir, 0o755)
			}
			t.Dir("tmp", 0o1777)
			t.File("bin/busybox", 0o755, string(text))
			for name := range strings.FieldsSeq(string(list)) {
				if name != "busybox" {
					t.Symlink("bin/"+name, "busybox")
				}
			}
		})}},
		Config: config("sh"),
	})
}
