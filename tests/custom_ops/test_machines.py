# SPDX-License-Identifier: Apache-2.0
"""The machine for which libraries are built, and the commands for each system."""

import dataclasses
import pathlib
import sys

import pytest

from keras_dynfilter.custom_ops import build, compilers, machines, toolchain, units
from keras_dynfilter.custom_ops.errors import BuildError
from keras_dynfilter.custom_ops.machines import Machine
from tests.support.fake_compiler import FakeCompiler

pytestmark = pytest.mark.legacy

TENSORFLOW = units.TensorFlow("2.21.0", "build", "/tf/include", "/tf", ())


@pytest.fixture
def compile_for(tmp_path, monkeypatch):
    """Returns a function that makes CXX a compiler for a machine, with arguments."""

    def choose(machine, arguments=""):
        compiler = FakeCompiler(tmp_path, machine=machine)
        monkeypatch.setenv("CXX", f"{compiler.path} {arguments}")
        machines._target_of.cache_clear()

    yield choose
    machines._target_of.cache_clear()


@pytest.fixture
def on(monkeypatch):
    """Returns a function that makes this machine another one, without CXX."""

    def choose(processor, system):
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.delenv("KERAS_DYNFILTER_MARCH", raising=False)
        monkeypatch.setattr(machines, "this", lambda: Machine(processor, system))

    return choose


@pytest.mark.parametrize(
    "triple, expected",
    [
        ("x86_64-linux-gnu", Machine("x86_64", "linux")),
        ("x86_64-conda-linux-gnu", Machine("x86_64", "linux")),
        ("x86_64-redhat-linux", Machine("x86_64", "linux")),
        ("aarch64-linux-gnu", Machine("aarch64", "linux")),
        ("aarch64-poky-linux-musl", Machine("aarch64", "linux", "musl")),
        ("arm-linux-gnueabihf", Machine("arm", "linux", "gnueabihf")),
        ("armv7l-unknown-linux-gnueabihf", Machine("arm", "linux", "gnueabihf")),
        ("arm64-apple-darwin23.1.0", Machine("aarch64", "darwin")),
        ("x86_64-w64-mingw32", Machine("x86_64", "windows")),
    ],
)
def test_the_machine_is_the_one_that_the_compiler_names(triple, expected, compile_for):
    compile_for(triple)
    assert dataclasses.replace(machines.target(), is_cross=False) == expected


def test_a_compiler_for_this_machine_is_no_cross_compiler(compile_for):
    compile_for(toolchain.output(["g++", "-dumpmachine"]).strip())
    assert machines.target() == machines.this() and not machines.target().is_cross
    name = units.ops_library(TENSORFLOW, False).file_name
    compile_for("aarch64-linux-musl")
    assert machines.target().is_cross and units.ops_library(TENSORFLOW, False).file_name != name


@pytest.mark.parametrize("answer", ["fake compiler 1", "", "x86"])
def test_a_compiler_that_names_no_machine_builds_for_this_machine(answer, compile_for):
    compile_for(answer)
    assert machines.target() == machines.this()


def test_arguments_of_the_compiler_are_used_and_change_the_name(compile_for):
    compile_for("aarch64-linux-gnu")
    plan = units.ort_library(False)
    compile_for("aarch64-linux-gnu", "--sysroot=/board -static-libstdc++")
    other = units.ort_library(False)
    assert other.file_name != plan.file_name
    command = compilers.Compilers.installed().link_command(other, [], pathlib.Path("library"))
    assert command[1:3] == ["--sysroot=/board", "-static-libstdc++"]


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    """Another compiler in its place could build for another machine."""
    monkeypatch.setenv("CXX", "aarch64-no-such-g++ -O1")
    with pytest.raises(BuildError, match=r"Expected CXX to be .* Received: CXX=aarch64-no-such-g\+\+ -O1"):
        compilers.Compilers.installed()


def marches(plan):
    """Returns the flags that select instruction sets, of the CPU kernels, without repetitions."""
    kernels = [unit for unit in plan.units if "cpu" in unit.source.parts and unit.source.name != "isa_dispatch.cc"]
    return list(dict.fromkeys(flag for unit in kernels for flag in unit.flags if flag.startswith(("-march", "-mcpu"))))


@pytest.mark.parametrize("value", [None, "", "native", "portable"])
def test_in_a_cross_build_native_and_portable_are_the_baseline(value, on, compile_for, monkeypatch):
    on("x86_64", "linux")
    compile_for("aarch64-linux-gnu")
    monkeypatch.delenv("KERAS_DYNFILTER_MARCH", raising=False)
    if value is not None:
        monkeypatch.setenv("KERAS_DYNFILTER_MARCH", value)
    plan = units.ort_library(False)
    assert marches(plan) == [] and "-DKERAS_DYNFILTER_PORTABLE" in plan.units[0].flags
    assert all("-DKERAS_DYNFILTER_ISA_TARGET=baseline" in unit.flags for unit in plan.units[1:-1])
    monkeypatch.setenv("KERAS_DYNFILTER_MARCH", "armv8.2-a")
    assert marches(units.ort_library(False)) == ["-march=armv8.2-a"]


def test_a_portable_library_for_x86_has_three_instruction_sets(on, monkeypatch):
    on("x86_64", "linux")
    monkeypatch.setenv("KERAS_DYNFILTER_MARCH", "portable")
    assert marches(units.ort_library(False)) == ["-march=x86-64", "-march=x86-64-v3", "-march=x86-64-v4"]


@pytest.mark.parametrize(
    "processor, system, march, link",
    [
        ("x86_64", "linux", "-march=native", "g++ -shared a.o /tf/libtensorflow_framework.so.2 -o out"),
        ("aarch64", "linux", "-mcpu=native", "g++ -shared a.o /tf/libtensorflow_framework.so.2 -o out"),
        (
            "aarch64",
            "darwin",
            "-mcpu=native",
            "g++ -dynamiclib -undefined dynamic_lookup -Wl,-install_name,@rpath/{name} a.o "
            "/tf/libtensorflow_framework.2.dylib -o out",
        ),
    ],
)
def test_commands_of_each_system(processor, system, march, link, on):
    on(processor, system)
    plan = units.ops_library(TENSORFLOW, False)
    command = compilers.Compilers(("g++",), None).link_command(plan, [pathlib.Path("a.o")], pathlib.Path("out"))
    assert " ".join(command) == link.format(name=plan.file_name)
    assert plan.file_name.endswith(".dylib" if system == "darwin" else ".so")
    assert marches(plan) == [march]
    (cc, framework) = units.xla_library(TENSORFLOW, False).libraries
    assert cc.name == framework.name.replace("framework", "cc")


@pytest.mark.parametrize("make", [build.build, build.build_ort])
def test_windows_is_refused_in_a_sentence(make, on, tmp_path):
    on("x86_64", "windows")
    with pytest.raises(BuildError, match=r"built on Linux .* not on windows"):
        make(cache_folder=tmp_path)


# What Linux lists for an AMD processor, shortened.
X86 = "flags\t\t: fpu vme msr cx8 sep mmx fxsr sse sse2 ht syscall nx rdtscp lm pni pclmulqdq ssse3 fma cx16 sse4_1 "
X86 += "sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm abm bmi1 avx2 smep bmi2 avx512f avx512bw avx512_vnni"
ARM = (
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp sve i8mm"
)


@pytest.mark.parametrize(
    "line, irrelevant, relevant",
    [
        (
            X86,
            ["hypervisor", "rtm", "hle", "ibrs_enhanced", "umip", "xsaves", "la57"],
            ["avx512_bf16", "xop", "avx10_1"],
        ),
        (ARM, ["ssbs", "paca", "bti", "dit", "sb", "rng", "dcpop", "dgh"], ["sve2", "bf16", "cssc", "asimdfhm"]),
    ],
)
def test_only_instruction_sets_that_compilers_use_distinguish_processors(line, irrelevant, relevant):
    """Kernels, hypervisors and microcode hide and add other flags. The cache is still found."""
    sets = machines.used_sets(["processor\t: 0", line])
    assert len(sets.split()) > 5
    words = line.split(":")[1].split()
    title = line.split(":")[0]
    assert machines.used_sets([f"{title}: {' '.join([*reversed(words), *irrelevant])}"]) == sets
    for word in relevant:
        assert machines.used_sets([f"{line} {word}"]) == " ".join(sorted([*sets.split(), word]))
    for word in sets.split():
        assert machines.used_sets([f"{title}: {' '.join(other for other in words if other != word)}"]) != sets


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/cpuinfo")
def test_the_instruction_sets_of_this_machine_are_found():
    assert machines.instruction_sets()
