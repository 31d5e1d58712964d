# Everything a user or a contributor runs. `make help` lists it.
PYTHON ?= python3
STACK ?= local
SETUP := $(PYTHON) -m toolchain
NESTLAB := $(PYTHON) nestlab
IN := . .nestlab/env.sh &&

.DEFAULT_GOAL := help
.PHONY: help up down show enter doctor toolchain host image test prove check bench clean

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

up: ## install what is missing, then bring the lab up (STACK=local; LOSE=1: also what loses disks)
	@$(NESTLAB) up --stack $(STACK) $(if $(LOSE),--lose)

down: ## take the lab away
	@$(NESTLAB) down --stack $(STACK)

show: ## print how to get into every machine (SECRETS=1: with passwords)
	@$(NESTLAB) show --stack $(STACK) $(if $(SECRETS),--secrets)

enter: ## open a shell on a machine of the lab (NAME=kvm1)
	@$(NESTLAB) enter --stack $(STACK) $(NAME)

doctor: ## say whether this machine can run nested labs, and what to mend
	@$(NESTLAB) doctor --stack $(STACK)

toolchain: ## find or build pulumi, the plugins of STACK and the Python environment (VERIFY=1: read all again)
	@$(SETUP) toolchain --stack $(STACK) $(if $(VERIFY),--verify)

host: ## install and start this machine's libvirt
	@$(SETUP) host

image: ## make the golden image of the nested KVM host
	@$(NESTLAB) image

test: ## units, then doubles, then a real lab on this machine
	@$(NESTLAB) test

prove: ## try KIND on its real product, cell by cell of the table of proofs (KIND=kvm)
	@$(NESTLAB) prove $(KIND)

check: toolchain ## lint and types
	@$(IN) ruff check . && ruff format --check . && export MYPYPATH=policies && mypy classroom cli components review toolchain tests __main__.py && mypy nestlab.py && mypy policies

bench: toolchain host image ## measure up, no-op and down beside plain virsh (minutes)
	@namespace=$$(cat .nestlab/netns); $(IN) $${namespace:+ip netns exec $$namespace} python3 -m tests.bench

clean: ## remove what the set-up started and built (CACHE=1: the shared cache too)
	@$(NESTLAB) clean $(if $(CACHE),--cache)
