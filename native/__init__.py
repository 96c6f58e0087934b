"""The C++ sources of lavit_bench as data of the package; lavit_edge/benchmark/native.py builds them."""
