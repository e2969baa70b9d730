"""The keys of a card, as frozen dataclasses; the `Args:` of each are printed into the reference page.

`card.py` loads them from TOML, `card_check.py` says what no single key can show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

from openus_data.patterns import Glob, PathRule

Checksum = NewType("Checksum", str)
CountryCode = NewType("CountryCode", str)
Doi = NewType("Doi", str)
FramePolicy = NewType("FramePolicy", str)
Id = NewType("Id", str)

SourceKind = Literal[
    "zenodo",
    "mendeley",
    "figshare",
    "github",
    "kaggle_dataset",
    "kaggle_competition",
    "gdrive_file",
    "gdrive_folder",
    "dataverse",
    "girder",
    "tcia",
    "http",
    "python_package",
    "manual",
]
LicenseClass = Literal[
    "attribution",
    "nc",
    "nc-sa",
    "nc-nd",
    "nc-agreement",
    "agreement-no-redistribution",
    "mixed",
    "conflicting",
    "unknown",
]
Orient = Literal["as-is", "transpose", "flip-rows", "flip-columns", "rotate-90", "rotate-180", "rotate-270"]
MaskEncoding = Literal["binary", "index", "colour", "rle-table", "coco", "labelme", "polygons-xml", "points", "outline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """Whom to credit.

    Args:
        text: authors, title, venue and year, in one line.
        doi: of the paper, else of the record.
        data_doi: of the record that holds the bytes, where it has its own.
    """

    text: str
    doi: Doi | None = None
    data_doi: Doi | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """What one may do with the images.

    Args:
        class_: coarse class, on which builds select.
        redistributable: whether images or shards may be handed on at all, under the terms of the licence.
        spdx: SPDX id, where the terms have one.
        terms: the terms in words; required where there is no SPDX id.
        read_at: where the terms were read.
        non_commercial: whether use is limited to non-commercial purposes; left out where not known.
    """

    class_: LicenseClass
    redistributable: bool
    spdx: str | None = None
    terms: str | None = None
    read_at: str | None = None
    non_commercial: bool | None = None

    @property
    def name(self) -> str | None:
        """What the manifest says: the SPDX id, else the terms; None where the licence is not known."""
        return self.spdx or (self.terms if self.class_ != "unknown" else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Another place with the same bytes.

    Args:
        source: kind of the source.
        locator: as for a download.
    """

    source: SourceKind
    locator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One file, or all files, of one source.

    Args:
        source: kind of the source.
        locator: what the source needs. zenodo: record id. mendeley: `id/version`. figshare: `article/version`. github:
            `owner/repository@commit`. kaggle_dataset: `owner/name`. kaggle_competition: its slug. gdrive_file,
            gdrive_folder: the id. dataverse: `https://host|doi:...`. girder, http: the URL. tcia: the collection.
            python_package: `package:path inside it`. manual: the page where a person begins.
        filename: the file's name on the host and below archives/; left out, every file of the record.
        bytes: its size, where the host publishes it.
        checksum: `sha256:...` or `md5:...`, where known.
        unpack: whether an archive is unpacked; other files are put below files/ as they are.
        into: folder below files/ that receives it; the root where left out.
        inner: archives inside the archive that are unpacked too, where they lie.
        mirrors: other places with the same bytes, tried in this order.
        note: what a person should know about this file.
    """

    source: SourceKind
    locator: str
    filename: str | None = None
    bytes: int | None = None
    checksum: Checksum | None = None
    unpack: bool = True
    into: str = ""
    inner: tuple[Glob, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A scanner that made images of this dataset.

    Args:
        manufacturer: slug of the vocabulary.
        model: as published.
        transducer: model or type of the transducer.
        frequency_mhz: the transmit frequency, or its lower and upper end.
    """

    manufacturer: str | None = None
    model: str | None = None
    transducer: str | None = None
    frequency_mhz: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Published counts, to compare a fetched copy with.

    Args:
        images: images of the source; for clips and volumes, their frames or slices.
        openus_images: the figure of the OpenUS list; only the 42 datasets of that list have it.
        files: files that the image rules should pick.
        subjects: people, phantoms or animals.
        clips: videos.
        volumes: three-dimensional scans.
        note: why the figures differ, where they do.
    """

    images: int | None = None
    openus_images: int | None = None
    files: int | None = None
    subjects: int | None = None
    clips: int | None = None
    volumes: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule:
    """Which files are images, and what is fixed for them.

    Args:
        match: globs; a file that any of them picks is an image.
        exclude: globs of files that are not, though `match` picks them.
        key: path rule for the name under which masks, tables and lists know the image; left out, its name without
            suffix.
        once: path rule; of the files with one key only the first is kept, for sets that repeat a picture.
        listed_in: name of a table; an image that has no row in it is left out.
        frames: frame policy: `all`, `every N`, `max N` (evenly spaced), `novel`, `annotated`.
        orient: what must be done to the stored pixels to see them as scanned.
        facts: manifest columns fixed for these files: organ, anatomy, view, pathology, device_manufacturer,
            device_model, transducer, institution, country.
    """

    match: tuple[Glob, ...]
    exclude: tuple[Glob, ...] = ()
    key: PathRule | None = None
    once: PathRule | None = None
    listed_in: str | None = None
    frames: FramePolicy = FramePolicy("all")
    orient: Orient = "as-is"
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRule:
    """Which files annotate images, and how they are read.

    Args:
        match: globs of the annotation files.
        exclude: globs of files that are not, though `match` picks them.
        encoding: binary: above `threshold` is `class`. index: pixel values are listed in `values`. colour: `#rrggbb`
            are listed in `values`, the nearest counts. rle-table: run lengths in a table. coco, labelme, polygons-xml:
            polygons whose names are listed in `values`. points: one polygon, a JSON list of [x, y]. outline: a closed
            contour that is filled.
        key: path rule for the key of the image that the file annotates; left out, its name without suffix.
        shared: one file annotates many images.
        class_: name of the class of a binary, outline, points or rle-table mask; one of the card's `mask_classes`.
        values: raw value, colour or category to the name of a class; what is not listed is background and is reported.
        threshold: grey level that a binary mask must exceed, of 255; JPEG masks need one.
        orient: as for images.
    """

    match: tuple[Glob, ...]
    exclude: tuple[Glob, ...] = ()
    encoding: MaskEncoding = "binary"
    key: PathRule | None = None
    shared: bool = False
    class_: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    threshold: int = 127
    orient: Orient = "as-is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file that says something about many images: CSV, JSON or XLSX by its suffix, or a plain list.

    Args:
        name: by which rules refer to it.
        match: globs of the file; several files are read one after the other.
        key: column that names the image; of a JSON object, `@key` is the member's own name.
        key_rule: path rule that reads the key out of that column; left out, the name without folder and suffix.
        image_key: path rule that reads the same key out of the image's path; left out, the image's own key.
        delimiter: of a CSV file; `whitespace` for runs of blanks.
        columns: names of the columns of a file without a header line.
        records: dotted path to the list of records in a JSON file.
        sheet: number of the sheet in an XLSX file, from 0.
        optional: not every copy of the dataset has it.
    """

    name: str
    match: tuple[Glob, ...]
    key: str
    key_rule: PathRule | None = None
    image_key: PathRule | None = None
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    records: str = ""
    sheet: int = 0
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """One of the dataset's own labels, and what it means in the project's vocabulary.

    Args:
        name: name of the label in the manifest's `labels`.
        path: path rule whose key is the label.
        table: name of the table that holds it.
        column: column of that table.
        member: member of the JSON object in that column.
        values: raw label to manifest columns (pathology, anatomy, organ, view, device_manufacturer, ...); a raw label
            that is not listed keeps its text, sets no column and is reported.
        open: the label is free text or a number that maps to nothing.
    """

    name: str
    path: PathRule | None = None
    table: str | None = None
    column: str | None = None
    member: str | None = None
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """Where the published split stands.

    Args:
        path: path rule whose key is the raw split.
        table: name of the table that holds it.
        column: column of that table.
        values: raw value to `train`, `val` or `test`; for a table without `column`, `*` is the split of every image in
            it.
        note: what the split is and how far it can be trusted.
    """

    path: PathRule | None = None
    table: str | None = None
    column: str | None = None
    values: Mapping[str, Literal["train", "val", "test"]] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """Where the key of the subject, or of the study, stands.

    Args:
        path: path rule; what it reads is the key.
        table: name of the table that holds it.
        column: column of that table.
        header: the file's own header says (DICOM); then it wins over the rest.
        values: raw key to key, for names that stand for one subject.
        fallback: what stands in where nothing matches: the image, its folder, the whole dataset, or the dataset's leak
            family.
        note: how sure the key is.
    """

    path: PathRule | None = None
    table: str | None = None
    column: str | None = None
    header: bool = False
    values: Mapping[str, str] = field(default_factory=dict)
    fallback: Literal["image", "folder", "dataset", "family"] = "image"
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A fact that is not certain.

    Args:
        field: key of the card.
        doubt: what is not certain, and why.
    """

    field: str
    doubt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Pictures or people shared with another dataset.

    Args:
        other: id of the other card, or a name where it has none.
        what: what is shared, and how that is known.
    """

    other: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A path of the real layout, and what the rules must make of it; the contract test runs these.

    Args:
        path: below the dataset's files.
        role: what the file is; `left-out` for files that the card leaves out.
        key: the key that pairs image and mask.
        subject: the subject's key, where the path says it.
        study: the study's key, where the path says it.
        split: the published split, where the path says it.
        labels: labels that the path says.
    """

    path: str
    role: Literal["image", "mask", "table", "left-out"]
    key: str | None = None
    subject: str | None = None
    study: str | None = None
    split: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One public dataset.

    Args:
        id: name of the file without suffix; the dataset's name everywhere.
        title: as published.
        homepage: page where a person reads about it.
        aliases: other ids under which lists carry it.
        role: pretrain, evaluate, or both.
        access: open; registration (an account or a form); data-use-agreement (terms to accept or sign); request.
        host: who serves the bytes.
        organ: coarse organ of the vocabulary.
        anatomy: fine anatomies of the vocabulary; a single one is set on every image.
        view: standard view that holds for every image.
        views: view or plane in words, where the vocabulary has no single term.
        imaged: what lay under the probe.
        private: ids are made with the user's secret key; for cards of one's own.
        citation: whom to credit.
        license: what one may do with the images.
        downloads: where the bytes come from.
        obtain: steps for a person, where no program can fetch it.
        devices: scanners; a single one is set on every image.
        institutions: as published; a single one is set on every image.
        countries: ISO 3166-1 alpha-2; a single one is set on every image.
        expected: published counts.
        images: which files are images.
        masks: which files annotate them.
        mask_classes: name to value of the label map, from 1; 0 is background.
        tables: files that hold labels, splits or keys of many images.
        labels: the dataset's own labels.
        split: the published split; the first rule that answers decides.
        subject: where the subject's key stands.
        study: where the key of the clip, volume or examination stands.
        leave_out: globs of files that are known and not used; the other rules come first.
        leak_family: name shared by datasets that may share pictures or people.
        overlaps: pictures or people known or suspected to be shared.
        warnings: traps that the user must see before the data are used.
        uncertain: facts that are not certain.
        examples: paths of the real layout, for the contract test.
        sha256: digest of the card's bytes; not a key.
    """

    id: Id
    title: str
    homepage: str
    role: Literal["pretrain", "evaluate", "both"]
    access: Literal["open", "registration", "data-use-agreement", "request"]
    host: str
    organ: str
    anatomy: tuple[str, ...]
    citation: Citation
    license: License
    downloads: tuple[Download, ...]
    images: tuple[ImageRule, ...]
    aliases: tuple[Id, ...] = ()
    view: str | None = None
    views: str | None = None
    imaged: Literal["human", "phantom", "animal", "mixed"] = "human"
    private: bool = False
    obtain: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    institutions: tuple[str, ...] = ()
    countries: tuple[CountryCode, ...] = ()
    expected: Expected = field(default_factory=Expected)
    masks: tuple[MaskRule, ...] = ()
    mask_classes: Mapping[str, int] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    labels: tuple[LabelRule, ...] = ()
    split: tuple[SplitRule, ...] = ()
    subject: KeyRule = field(default_factory=KeyRule)
    study: KeyRule | None = None
    leave_out: tuple[Glob, ...] = ()
    leak_family: str | None = None
    overlaps: tuple[Overlap, ...] = ()
    warnings: tuple[str, ...] = ()
    uncertain: tuple[Doubt, ...] = ()
    examples: tuple[Example, ...] = ()
    sha256: str = field(default="", metadata={"derived": True})

    @property
    def is_openus(self) -> bool:
        """Whether the dataset is one of the 42 of the OpenUS list."""
        return self.expected.openus_images is not None

    @property
    def needs_person(self) -> bool:
        """Whether a part of it can only be had by a person: some download is manual."""
        return any(d.source == "manual" for d in self.downloads)

    def facts(self) -> dict[str, str | float | None]:
        """Manifest columns that hold for every image, because the card names exactly one value."""
        facts: dict[str, str | float | None] = {"organ": self.organ}
        for column, values in (
            ("anatomy", self.anatomy),
            ("institution", self.institutions),
            ("country", self.countries),
        ):
            if len(values) == 1:
                facts[column] = values[0]
        if self.view:
            facts["view"] = self.view
        if len(self.devices) == 1:
            facts |= _device_facts(self.devices[0])
        return facts


def _device_facts(device: Device) -> dict[str, str | float | None]:
    facts: dict[str, str | float | None] = {
        "device_manufacturer": device.manufacturer,
        "device_model": device.model,
        "transducer": device.transducer,
        "frequency_mhz": device.frequency_mhz[0] if len(device.frequency_mhz) == 1 else None,
    }
    return {k: v for k, v in facts.items() if v is not None}
