"""From the images' candidates to sources, light curves, plots and the page."""


rule sources:
    input:
        image_products(
            "status.json",
            "candidates.fits",
            "uncatalogued.fits",
            "photometry.json",
            "difference.fits",
            "psf.fits",
            "wcs.fits",
            "astrometry.json",
        ),
        known=[KNOWN] if CAMPAIGN.config["known"]["services"] else [],
    output:
        campaign_products(*TABLES, "model_card.json"),
    log:
        f"{RESULTS}/campaign/logs/sources.log",
    params:
        script="sources.py",
        params=section("sources"),
        aside=json.dumps(CAMPAIGN.config["known"]["set_aside"]),
        code=code("sources"),
        images=" ".join(CAMPAIGN.images),
        results=results_folder,
        list=IMAGE_LIST,
    shell:
        f"{RUN_CAMPAIGN} --known {{input.known:q}} --aside {{params.aside:q}} > {{log:q}} 2>&1"


rule plots:
    input:
        state=f"{IMAGE}/status.json",
        exposure=exposure,
        mask=rules.inspect.output.mask,
        objects=rules.photometry.output.objects,
        calibrators=rules.photometry.output.calibrators,
        catalog=rules.catalog.output.catalog,
        wcs=rules.astrometry.output.wcs,
        matches=rules.astrometry.output.matches,
        photometry=rules.photometry.output.state,
        detect=rules.detect.output.state,
        psf=rules.psf.output.state,
        image_psf=rules.psf.output.psf,
        fakes=rules.fakes.output.fakes,
        difference=rules.subtract.output.difference,
        candidates=rules.transients.output.everything,
        # The status that they show is that of an image whose stages are all done.
        uncatalogued=rules.uncatalogued.output.state,
    output:
        overview=f"{IMAGE}/plots/overview.png",
        background=f"{IMAGE}/plots/background.png",
        shape=f"{IMAGE}/plots/shape.png",
        psf=f"{IMAGE}/plots/psf.png",
        fwhm=f"{IMAGE}/plots/fwhm.png",
        zeropoint=f"{IMAGE}/plots/zeropoint.png",
        astrometry=f"{IMAGE}/plots/astrometry.png",
        limit=f"{IMAGE}/plots/limit.png",
        realbogus=f"{IMAGE}/plots/realbogus.png",
        completeness=f"{IMAGE}/plots/completeness.png",
    log:
        f"{IMAGE}/logs/plots.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        code=code("plots"),
        folder=image_folder,
    shell:
        "nightsift plots.py --name {wildcards.image} --images {params.folder:q}"
        " --exposure={input.exposure:q} --plots {params.folder:q}/plots > {log:q} 2>&1"


rule report:
    input:
        campaign_products(*TABLES),
        image_products("cutouts.fits", "plots/overview.png"),
    output:
        f"{RESULTS}/campaign/report.html",
    log:
        f"{RESULTS}/campaign/logs/report.log",
    params:
        script="report.py",
        params=section("report"),
        code=code("report"),
        images=" ".join(CAMPAIGN.images),
        results=results_folder,
        list=IMAGE_LIST,
    shell:
        f"{RUN_CAMPAIGN} > {{log:q}} 2>&1"
