"""Weights that torch wrote, read without torch; BatchNorms and matrices as torch names and lays them out."""

from __future__ import annotations

import base64
import io
import pickle
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import paddle
import pytest

from segkit.engine.weights import load_state, load_weights, save_state
from segkit.errors import InputError
from segkit.models.backbones.mix_transformer import MixVisionTransformer_B0
from segkit.models.backbones.resnet import ResNet18, ResNet50
from segkit.models.backbones.resnet_vd import ResNet18_vd

# torch.save(state) by torch 2 of a float32 matrix, its transpose, a row of it, an int64, float16, bfloat16, a
# Parameter; as a zip archive, and in the format before 1.6 within {"state_dict": state}.
ZIP = r"""
c-qBQOLN;)6u!0`*{C6pLdgRNl&1};6U(-2H)$L+jHWYUhFBEF6BZstRxM2w%SXOWfK_HX39u_OtQr0V+x`U}VOX&1qOjrzu;E@^N0k&3x6YzU
6pifjJ+AIKU$muiDTFc^bmo{rSCQ@+mc4JTv~{fKd%KPzPoeF|ahNm=*Kte(+itfneC)MN&uo8a8(098(;$&;Qf@teVA>rEL(;%5A<ef2*mn9t
%QJTdw$pB5v)gyQ*1jkJm(4cQ1k)##ddGwmg9wV_>i84(p#T%j1gTjCzR8iR(HlTo<uPO$DpHdwcMQ*|oSHZW;aiLPxPoC)gXjHXJ&$3^A~IIW
Vl)MqwtV;ug>!217-rQ3Wx2}WFJO34gKN!eKD;~FYwhURu*`l7d%Ce}w&5j4IQ06F+wBBa=X?zj=7~lE!vfLB<rwcGhL<&X#V@en)d<IJ-MJfZ
Ecqoxc#Uu*F}&_C^9Zi1i6eM}alMJ*Ee+oG3wPk12$$?Xyn+<)z3Z2iAj|l2L%#PY-}{Vj8N&??@_u0tR?gYDp6=;;CN@0*RwK`}3<bt54!Mhz
yTrK57$glU-}pDxuc4;F%_eC?v~QaSuy#sh@oZbx8)Q?sBe+E=HW)=6!=?rw4DwrQI`i}A#>TxQLiF4^x25M$HE8MlUDw;wackf7`lNLgxfJW{
Cp!vM{ilEayhoQz&-2w6QRT7vu(?~hV|TiHW)~}RaU26ui5jRMz~5x$D0!iQSyT@U?0kt$mkz5UuZ^|v;o;aAJ0|sTbnD>)PgM8|JxrmENUE%?
D)P-s7+|c2b@FGE{F3vKoIh?-M|1ZdeK$|Om>=P2IqImO$XWCZ^~I;rPY+qBUhnruE)~d(&|8n{6&1NU_70Hkd_c9Olauf1{H8`|Z$`CCioAZA
_S=3?XZq>J_QNss%a_$>dw*D`9_}~zlhMzA8m$E$g7B$~YoaLl@%KaL)6w(4gv7@I<S)N(dNxU*uXOs~yJfc(IscSK3ZhgkOO;|xs!1jCBT9wB
s#va7t71)*O66*~R;-Anir=5R3%M-uk@a0BsM)}0IKXGlIFG-F#L?jZo{J!VO``K6KTZ-3(ZvW!gF_c2cbq32gtHNzUqU=V0LS6s)R>CEKTDxl
c0M`wuQ;|4$A;4*inS(USTT+bPk$8qM;u#>W5bgh#opm#*isxDp13IXw>Y+ZrsG00GabRwx6jywo_ScIR$hwkaR~hXL$;;z{PO8YayJ6xWbFEH
l3l;ZoJKtFr+xnlyJv436FkFA`t_{#KO>`}PX
"""
OLD = r"""
c-n=NS#Q%o5XXJwD2A4D6ewr86OIr&X%3F2l&V59SIvuGkmWi{ZE)?3J#Gb3rM$EhJ_8Rt@-g~#_y|ZmFg}P#WrXEjdv|7k|J|9{q3}g=e|=r~
Irr}StJ&I6c>Y7AejB)oKFx95An?(*eAn1yLFo7%@Z_LRlErlpU1l(^@0cD4d%8rE_+h||(D}$h5VxUF(Tg-0+J1mgR0Un6k>eqh)Pi1!8NRm;
Wwj7Rsb<0m(L`qS9SecCNZMr<l5!}$4Eii!{bjO9AXGIFEBXX2Fl$@PS+@}i7W#o@*Ng}qH<XNktwoO8H;{Ru9~hg81jR~4FDD{?V6HPLrAwq0
*EjKXIw?U}pCX@bQ&w7yc4NNXt+y4JNVabcA~>X$ULZ)TDyIsnxC@6>QRR2x$Y(p=)g;1{21gTbvxYEjlc-&?4?sJ0x!Htcb_zQl!$eisg%c_t
Gf$?l8H7_BoYrR&m=|prYbIJY3k?iR>pknknG~O$;~7PCbd1?C#g<ZUG+J<$6nRoSM~c;Is&XFTf(93Lp4@G?G)8=Cx^G9sxiMl#ZnT;mxJ*QW
h*y$;?7&r(-+^l>`8vW44Q?jnHK>e{my)2%tr5L?klyYpa4VzV&ggey`rVXH(Y>cZJ)sXk{zv);W?*hGWPt=qZZ0~q(v=lxWJ=9UX+BnJrAlpt
jt1SmWN`lzJka1_Qo@@K+k!{=DNgHVAxm*@l@cuOz+#MjoMM*{o@lTfg;f7<;yahKp3kcrAuqLJ-l+<CDJ$khy2NTF?(b*Vqi&I2YC~$@7XN4G
GfO%93S+**-e|nQ?f?1T?{WLT0iiY=;Q
"""


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(re.sub(r"\s", "", text)))


@pytest.mark.parametrize("stored", [ZIP, OLD], ids=["zip", "old"])
def test_what_torch_saves(stored: str, tmp_path: Path):
    path = tmp_path / "model.pth"
    path.write_bytes(unpacked(stored))
    state = load_state(path)
    whole = np.arange(6, dtype="float32").reshape(2, 3)
    wanted = {"a.weight": whole, "a.t": whole.T, "view": whole[1], "a.num_batches_tracked": np.int64(7)}
    wanted |= {"h": np.float16([1.5, -2]), "b": np.float32([1.5, -2]), "p": np.float32([1, 1])}
    assert set(state) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_array_equal(state[key], value)
        assert state[key].dtype == value.dtype


def test_a_compressed_archive_is_refused(tmp_path: Path):
    """torch stores its parts as they are; a deflated one could unfold to any size."""
    path = tmp_path / "x.pth"
    path.write_bytes(unpacked(ZIP))
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(InputError, match=r"y\.pth: truncated or not weights of PyTorch \(.*a compressed archive"):
        load_state(tmp_path / "y.pth")


@pytest.mark.parametrize("stored", [ZIP, OLD], ids=["zip", "old"])
def test_damaged_files(stored: str, tmp_path: Path):
    data, path = unpacked(stored), tmp_path / "bad.pth"
    for length in (20, len(data) // 3, len(data) - 8):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"bad\.pth: truncated or not weights of PyTorch"):
            load_state(path)


def archive(path: Path, pickled: bytes, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for name, content in more.items():
            file.writestr(f"archive/{name}", content)
    return path


class Call:
    def __reduce__(self):
        return print, ("run",)


def test_whole_models_and_other_archives_are_refused(tmp_path: Path, capsys):
    path = archive(tmp_path / "x.pth", pickle.dumps({"a": Call()}))
    with pytest.raises(InputError, match=r"refused, because loading it would run code \(got builtins.print"):
        load_state(path)
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match=r"not weights of PyTorch .*big-endian"):
        load_state(archive(path, pickle.dumps({}), byteorder=b"big"))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "")
    with pytest.raises(InputError, match=r"not weights of PyTorch .*without data\.pkl"):
        load_state(path)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path):
    with zipfile.ZipFile(io.BytesIO(unpacked(ZIP))) as file:
        pickled = file.read("archive/data.pkl")
        numbers = {name: file.read(name) for name in file.namelist() if "/data/" in name}
    assert pickled.count(b"K\x02K\x03\x86") == 1  # the shape (2, 3) of the matrix
    path = archive(tmp_path / "x.pth", pickled.replace(b"K\x02K\x03\x86", b"K\x09K\x09\x86"))
    with zipfile.ZipFile(path, "a") as file:
        for name, content in numbers.items():
            file.writestr(name, content)
    with pytest.raises(InputError, match="a tensor beyond its storage"):
        load_state(path)


# What torch names and lays out in another way


def dumped(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]  # without the protocol and the stop


def write_torch(state: dict[str, np.ndarray], path: Path) -> Path:
    """`state` as torch.save writes it."""
    entries, storages = b"", {}
    for number, (key, array) in enumerate(state.items()):
        array = np.asarray(array, order="C")
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[array.dtype.name]
        name = b"ctorch\n%s\n" % kind.encode()
        storage = b"(" + dumped("storage") + name + b"".join(map(dumped, (str(number), "cpu", array.size))) + b"tQ"
        strides = tuple(step // array.itemsize for step in array.strides)
        rest = b"".join(map(dumped, (0, array.shape, strides, False, {})))
        entries += dumped(key) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"
        storages[f"data/{number}"] = array.tobytes()
    return archive(path, b"\x80\x02}(" + entries + b"u.", **storages)


def as_torch(net: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """The state dict of the same net in torch."""
    found = {}
    matrices = {f"{name}.weight" for name, layer in net.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    for key, value in net.state_dict().items():
        new = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        found[new] = value.numpy().T if key in matrices else value.numpy()
        if key.endswith("._variance"):
            found[key.replace("_variance", "num_batches_tracked")] = np.zeros((), "int64")
    return found


def write_as(ending: str, state: dict[str, np.ndarray], folder: Path) -> Path:
    path = folder / f"model{ending}"
    if ending == ".pth":
        return write_torch(state, path)
    save_state(state, path)
    return path


def assert_loaded(model: paddle.nn.Layer, source: paddle.nn.Layer) -> None:
    for key, value in source.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[key].numpy(), value.numpy(), err_msg=key)


class Net(paddle.nn.Layer):
    """Layers that torch lays out as Paddle does, and matrices, which it does not."""

    def __init__(self, *sides: tuple[int, int], norm: bool = True):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3)
        self.up = paddle.nn.Conv2DTranspose(4, 2, 2)
        self.norm = paddle.nn.BatchNorm2D(4) if norm else paddle.nn.LayerNorm(4)
        self.table = paddle.nn.Embedding(5, 4)
        self.position = self.create_parameter([4, 6])
        self.linears = paddle.nn.LayerList([paddle.nn.Linear(*each) for each in sides])
        if norm:
            self.norm._mean.set_value(paddle.randn([4]))


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".pdparams"])
def test_matrices_are_turned_and_running_values_found(ending: str, tmp_path: Path):
    paddle.seed(0)
    source, target = (Net((3, 3), (3, 6), (6, 2)) for _ in range(2))
    report = load_weights(target, write_as(ending, as_torch(source), tmp_path), strict=True)
    assert_loaded(target, source)
    assert report.turned == [f"linears.{number}.weight" for number in range(3)]
    assert "0 unknown to the model, 3 matrices turned: they lie as torch's do" in str(report)


@pytest.mark.parametrize("ending, norm", [(".pth", True), (".pth", False), (".safetensors", True)])
def test_square_matrices_alone_go_by_the_file(ending: str, norm: bool, tmp_path: Path):
    paddle.seed(0)
    source, target = (Net((3, 3), norm=norm) for _ in range(2))
    load_weights(target, write_as(ending, as_torch(source), tmp_path), strict=True)
    assert_loaded(target, source)


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".pdparams"])
def test_paddles_own_matrices_stay_as_they_are(ending: str, tmp_path: Path):
    paddle.seed(0)
    source, target = (Net((3, 3), (3, 6)) for _ in range(2))
    own = {key: value.numpy() for key, value in source.state_dict().items()}
    report = load_weights(target, write_as(ending, own, tmp_path), strict=True)
    assert_loaded(target, source)
    assert not report.turned and "turned" not in str(report)


def test_a_matrix_of_another_head_is_skipped_while_the_others_are_turned(tmp_path: Path):
    paddle.seed(0)
    source, target = Net((3, 3), (3, 6), (6, 5)), Net((3, 3), (3, 6), (6, 2))
    report = load_weights(target, write_torch(as_torch(source), tmp_path / "model.pth"))
    assert report.shape_mismatch == [("linears.2.weight", [6, 5], [6, 2]), ("linears.2.bias", [5], [2])]
    np.testing.assert_array_equal(target.linears[0].weight.numpy(), source.linears[0].weight.numpy())


def test_a_published_transformer(tmp_path: Path):
    """NVIDIA's MiT has these keys, and square matrices that would fit unturned."""
    paddle.seed(0)
    source, target = MixVisionTransformer_B0(), MixVisionTransformer_B0()
    path = write_torch({**as_torch(source), "head.weight": np.zeros((10, 256), "float32")}, tmp_path / "mit_b0.pth")
    report = load_weights(target, path)
    assert report.unexpected == ["head.weight"] and not report.missing and not report.shape_mismatch
    assert_loaded(target, source)


# ResNet


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_it_is_the_published_resnet(name: str):
    paddle.seed(0)
    reference = getattr(paddle.vision.models, name)()
    net = {"resnet18": ResNet18, "resnet50": ResNet50}[name]()
    own = {key: value.numpy() for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    assert set(own) == set(net.state_dict())
    net.set_state_dict(own)
    net.eval(), reference.eval()
    image = paddle.randn([1, 3, 50, 70])
    with paddle.no_grad():
        found = reference.fc(net(image)[-1].mean([2, 3]))
        np.testing.assert_allclose(found.numpy(), reference(image).numpy(), rtol=1e-4, atol=1e-5)


def test_torch_keys_are_mapped(tmp_path: Path):
    paddle.seed(0)
    source, target = ResNet18(), ResNet18()
    source.bn1._mean.set_value(paddle.randn([64]))
    state = {**as_torch(source), "fc.weight": np.zeros((1000, 512), "float32")}
    report = load_weights(target, write_torch(state, tmp_path / "resnet18.pth"))
    assert report.unexpected == ["fc.weight"] and not report.missing and not report.shape_mismatch
    assert_loaded(target, source)


def test_of_another_depth_or_kind_is_refused(tmp_path: Path):
    save_state(as_torch(ResNet50()), tmp_path / "resnet50.pdparams")
    with pytest.raises(InputError, match="weights of a ResNet18 of another width"):
        load_weights(ResNet18(), tmp_path / "resnet50.pdparams")
    with pytest.raises(InputError, match="weights of another model, nothing was loaded"):
        load_weights(ResNet18_vd(), tmp_path / "resnet50.pdparams")
