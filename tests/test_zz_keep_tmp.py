import shutil


def test_keep(bundle, int8):
    shutil.copytree(bundle, "/tmp/h/bundle", dirs_exist_ok=True)
    shutil.copytree(int8, "/tmp/h/int8", dirs_exist_ok=True)
