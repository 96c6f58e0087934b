"""The C++ sources of lavit_bench as data of the package; lavit_edge/bench/native.py builds them."""
