// Command node is every program of a one-node Kubernetes in one binary: the name that it was called by says which
// (a link named kubectl is kubectl), or else its first argument.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
}

func main() {
	if name := filepath.Base(os.Args[0]); known(name) {
		run(name)
	}
	if len(os.Args) < 2 || !known(os.Args[1]) {
		fmt.Fprintln(os.Stderr, "usage: node etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kube-proxy|kubelet|kubectl …")
		os.Exit(2)
	}
	// Each program takes its arguments from os.Args, as if it had been called by its own name.
	os.Args = os.Args[1:]
	run(os.Args[0])
}

func known(name string) bool {
	_, program := programs[name]
	return program || name == "etcd"
}

func run(name string) {
	if name == "etcd" {
		etcdmain.Main(os.Args)
		os.Exit(0)
	}
	os.Exit(cli.Run(programs[name]()))
}
