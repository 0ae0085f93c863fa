package sqlite

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/headgate/headgate/internal/queue"
)

// mountEnv is set in the process that has file systems of its own.
const mountEnv = "HEADGATE_TEST_MOUNT"

// TestFullDisk runs on a disk that really is full: a file system of a few
// megabytes in memory, in a process that has its own table of mounts. Root may
// have one, and so may others where user namespaces are allowed to them;
// elsewhere TestFull has to do.
func TestFullDisk(t *testing.T) {
	if os.Getenv(mountEnv) != "" {
		testFullDisk(t)
		return
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	self, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	cmd := exec.Command(self, "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), mountEnv+"="+dir)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	exit, ran := err.(*exec.ExitError)
	switch {
	case err == nil:
		t.Logf("%s", out)
	case ran && exit.ExitCode() == noMount:
		t.Skipf("no file system of our own here: %s", out)
	case ran:
		t.Fatalf("%v\n%s", err, out)
	default:
		t.Skipf("no namespace of our own here: %v", err)
	}
}

// noMount is the exit code that says: it is not permitted here.
const noMount = 77

func testFullDisk(t *testing.T) {
	dir := os.Getenv(mountEnv)
	// What is mounted here is nobody else's business.
	err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=12m")
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(noMount)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)

	for _, c := range []struct {
		name    string
		reserve int64
		soft    int64
		stays   bool
	}{
		{"the log runs full", 3 << 20, 64 << 20, true},
		// Here bringing the log into the file makes room.
		{"the file runs full", 3 << 20, 64 << 10, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, "journal")
			// What else is on the disk, and goes later.
			other := filepath.Join(dir, "other")
			must(t, os.WriteFile(other, make([]byte, 6<<20), 0o600))
			s := mustOpen(t, path, Options{Reserve: c.reserve, softWAL: c.soft, hardWAL: 4 * c.soft})
			prepareFull(t, s)
			testFull(t, s, c.stays, func() bool {
				_, err := os.Stat(path + ".reserve")
				return os.IsNotExist(err)
			}, func() { must(t, os.Remove(other)) })
			must(t, os.RemoveAll(path))
			must(t, os.RemoveAll(path+"-wal"))
			must(t, os.RemoveAll(path+"-shm"))
		})
	}
	t.Run("nothing fits from the start", func(t *testing.T) {
		must(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 12<<20-4096*6), 0o600))
		path := filepath.Join(dir, "new")
		s, err := Open(path, Options{})
		if err == nil {
			err = s.Add(t.Context(), make([]queue.Execution, 1000))
			s.Close()
		}
		if err == nil {
			t.Fatal("there was room")
		}
		t.Logf("says: %v", err)
	})
}
