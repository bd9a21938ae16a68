# SPDX-License-Identifier: GPL-2.0-only
#
# The verbs of this repository.  Each is a script with --help; nothing here
# builds kernel objects itself.

CONFIG ?= test
S := scripts

.DEFAULT_GOAL := help
.PHONY: help deps tree export kernel run shell test repairs debug coverage variants \
	check bench lint mbox clean

flags = $(if $(UNPATCHED),-u)

help:
	@echo 'make run      build, boot, flip pages, hand 1 GiB over, move a file by each call [FILE=]'
	@echo 'make check    everything: round trip, lint, kernels, tests'
	@echo 'make deps     install the Debian packages that are missing'
	@echo 'make tree     base + queue -> build/linux, a git tree'
	@echo 'make export   build/linux -> patches/ and the new files here'
	@echo 'make kernel   build it [CONFIG=test|debug|kcsan|fault] [UNPATCHED=1]'
	@echo 'make test     run the selftests in it [T=program] [F=filter] [E=NAME=VALUE] [...]'
	@echo 'make repairs  what was repaired: test fails on the base, passes here'
	@echo 'make debug    all of it under fire: sanitizers, races, faults, fuzz [MINUTES=10] [CONFIG=]'
	@echo 'make coverage which lines of the kernel the selftests run [T=program]'
	@echo 'make variants compile in other configurations and for other architectures'
	@echo 'make shell    an interactive guest'
	@echo 'make bench    cost of each way, base beside ours [REPEAT=2] [CHECK=1]'
	@echo 'make lint     style and static checks of the queue'
	@echo 'make mbox     the topics as mails [SIGNOFF="Name <mail>"] [TRAILER=] [TOPIC=]'

deps:
	@$(S)/deps

tree: deps
	@$(S)/tree

export:
	@$(S)/export

# Here work that is not exported yet is what is to be built.  UNPATCHED is for
# the verbs that name it: both trees are needed, tests come from the patched one.
kernel: deps
	@test -f configs/$(CONFIG).config || $(S)/kernel -c $(CONFIG)
	@UNPATCHED= $(S)/tree --keep
	@$(if $(UNPATCHED),$(S)/tree --unpatched)
	@$(S)/kernel -c $(CONFIG) $(flags)

test: kernel
	@$(S)/test -c $(CONFIG) $(flags) $(T:%=-t %) $(if $(F),-f '$(F)') $(E:%=-E %)

shell: kernel
	@$(S)/test -c $(CONFIG) $(flags) -i

run: override CONFIG = test
run: override UNPATCHED =
run: kernel
	@$(S)/run $(if $(FILE),'$(FILE)')

repairs: override CONFIG = test
repairs: override UNPATCHED = 1
repairs: kernel
	@UNPATCHED= $(S)/kernel -c test
	@$(S)/repairs

debug: deps
	@UNPATCHED= $(S)/tree --keep
	@$(S)/debug $(if $(MINUTES),-m $(MINUTES)) \
		$(if $(filter command environment,$(origin CONFIG)),$(CONFIG:%=-c %))

coverage: deps
	@UNPATCHED= $(S)/tree --keep
	@$(S)/coverage $(T)

variants: override CONFIG = test
variants: override UNPATCHED =
variants: kernel
	@$(S)/variants

bench: override CONFIG = test
bench: override UNPATCHED = 1
bench: kernel
	@UNPATCHED= $(S)/kernel -c test
	@$(S)/bench $(if $(ACCEL),-a $(ACCEL)) $(if $(REPEAT),-r $(REPEAT)) \
		$(if $(CHECK),-c) $(if $(F),-f '$(F)') $(if $(BYTES),-s $(BYTES))

lint: deps
	@UNPATCHED= $(S)/tree --keep
	@$(S)/lint

check: deps
	@$(S)/check

mbox: tree
	@$(S)/mbox $${TOPIC:+-t "$$TOPIC"} "$$SIGNOFF" $${TRAILER:+"$$TRAILER"}

clean:
	rm -rf build/out-* build/result-* build/stress-* build/coverage build/variants build/unpatched
